#pragma once

#include "kernels/math_simd.h"
#include "kernels/parallel.h"

namespace bullpen::kernels {
namespace {

template <typename V>
void CombineRow(const CombineArgs& args, int64_t token) {
  using F = typename V::F;
  const float* weights = args.weights + token * args.k;
  const float* y = args.y + token * args.k * args.dim;
  float* h = args.h + token * args.dim;
  for (int32_t i = 0; i < args.dim; i += 16) {
    const int n = std::min(args.dim - i, 16);
    F sum = V::Zero();
    for (int64_t r = 0; r < args.k; ++r) {
      sum = V::Fma(V::Set(weights[r]), LoadLanes<V>(y + r * args.dim + i, n),
                   sum);
    }
    sum = V::Mul(V::Set(args.scale), sum);
    StoreLanes<V>(h + i, n, V::Add(LoadLanes<V>(h + i, n), sum));
  }
}

template <typename V>
absl::Status Combine(const CombineArgs& args, Stream& stream) {
  const int64_t work = int64_t{args.k} * args.dim;
  ForParts(stream, args.tokens, work, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) CombineRow<V>(args, t);
  });
  return absl::OkStatus();
}

}  // namespace
}  // namespace bullpen::kernels
