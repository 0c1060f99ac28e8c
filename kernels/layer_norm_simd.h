#pragma once

#include <cmath>

#include "kernels/math_simd.h"
#include "kernels/parallel.h"

namespace bullpen::kernels {
namespace {

template <typename V>
float Mean(const float* x, int32_t dim) {
  __m256 sum = _mm256_setzero_ps();
  for (int32_t i = 0; i < dim; i += 16) {
    // Lanes past the end are zero and add nothing.
    const typename V::F a = LoadLanes<V>(x + i, std::min(dim - i, 16));
    sum = _mm256_add_ps(_mm256_add_ps(sum, V::Low(a)), V::High(a));
  }
  return SumEight(sum) / static_cast<float>(dim);
}

template <typename V>
float SumOfSquaredDistances(const float* x, int32_t dim, typename V::F mean) {
  __m256 sum = _mm256_setzero_ps();
  for (int32_t i = 0; i < dim; i += 16) {
    const int n = std::min(dim - i, 16);
    const typename V::F d =
        V::Keep(V::Sub(LoadLanes<V>(x + i, n), mean), 0, n, V::Zero());
    sum = _mm256_fmadd_ps(V::Low(d), V::Low(d), sum);
    sum = _mm256_fmadd_ps(V::High(d), V::High(d), sum);
  }
  return SumEight(sum);
}

template <typename V>
void LayerNormRow(const LayerNormArgs& args, int64_t token) {
  const float* x = args.x + token * args.x_stride;
  float* y = args.y + token * args.y_stride;
  const typename V::F mean = V::Set(Mean<V>(x, args.dim));
  const float variance = SumOfSquaredDistances<V>(x, args.dim, mean) /
                         static_cast<float>(args.dim);
  const typename V::F s = V::Set(1.0f / std::sqrt(variance + args.eps));
  for (int32_t i = 0; i < args.dim; i += 16) {
    const int n = std::min(args.dim - i, 16);
    const typename V::F a = V::Mul(V::Sub(LoadLanes<V>(x + i, n), mean), s);
    StoreLanes<V>(y + i, n,
                  V::Fma(a, LoadLanes<V>(args.weight + i, n),
                         LoadLanes<V>(args.bias + i, n)));
  }
}

template <typename V>
absl::Status LayerNorm(const LayerNormArgs& args, Stream& stream) {
  ForParts(stream, args.tokens, args.dim, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) LayerNormRow<V>(args, t);
  });
  return absl::OkStatus();
}

}  // namespace
}  // namespace bullpen::kernels
