#pragma once

#include <cmath>

#include "kernels/math_simd.h"
#include "kernels/parallel.h"

namespace bullpen::kernels {
namespace {

// The sum of squares of x[0, dim).
template <typename V>
float SumOfSquares(const float* x, int32_t dim) {
  __m256 sum = _mm256_setzero_ps();
  for (int32_t i = 0; i < dim; i += 16) {
    // Lanes past the end are zero and add nothing.
    const typename V::F a = LoadLanes<V>(x + i, std::min(dim - i, 16));
    sum = _mm256_fmadd_ps(V::Low(a), V::Low(a), sum);
    sum = _mm256_fmadd_ps(V::High(a), V::High(a), sum);
  }
  return SumEight(sum);
}

template <typename V>
void NormRow(const RmsNormArgs& args, const float* x, float* y) {
  const float mean =
      SumOfSquares<V>(x, args.dim) / static_cast<float>(args.dim);
  const typename V::F s = V::Set(1.0f / std::sqrt(mean + args.eps));
  for (int32_t i = 0; i < args.dim; i += 16) {
    const int n = std::min(args.dim - i, 16);
    typename V::F a = V::Mul(LoadLanes<V>(x + i, n), s);
    if (args.weight != nullptr) {
      a = V::Mul(a, LoadLanes<V>(args.weight + i, n));
    }
    StoreLanes<V>(y + i, n, a);
  }
}

template <typename V>
absl::Status RmsNorm(const RmsNormArgs& args, Stream& stream) {
  const int64_t work = int64_t{args.heads} * args.dim;
  ForParts(stream, args.tokens, work, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t head = 0; head < args.heads; ++head) {
        NormRow<V>(args, args.x + t * args.x_stride + head * args.dim,
                   args.y + t * args.y_stride + head * args.dim);
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace
}  // namespace bullpen::kernels
