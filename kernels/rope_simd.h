#pragma once

#include <cmath>

#include "kernels/math_simd.h"
#include "kernels/parallel.h"

namespace bullpen::kernels {
namespace {

// Pairs (i, i + half).
template <typename V>
void RotateHalves(float* x, const float* cos, const float* sin, int32_t half) {
  using F = typename V::F;
  for (int32_t i = 0; i < half; i += 16) {
    const int n = std::min(half - i, 16);
    const F c = LoadLanes<V>(cos + i, n), s = LoadLanes<V>(sin + i, n);
    const F a = LoadLanes<V>(x + i, n), b = LoadLanes<V>(x + half + i, n);
    StoreLanes<V>(x + i, n, V::Fma(a, c, V::Negate(V::Mul(b, s))));
    StoreLanes<V>(x + half + i, n, V::Fma(b, c, V::Mul(a, s)));
  }
}

// Pairs (2i, 2i + 1): the compiler vectorises this loop well enough.
inline void RotateNeighbours(float* x, const float* cos, const float* sin,
                             int32_t half) {
  for (int32_t i = 0; i < half; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = std::fma(a, cos[i], -(b * sin[i]));
    x[2 * i + 1] = std::fma(b, cos[i], a * sin[i]);
  }
}

template <typename V>
absl::Status Rope(const RopeArgs& args, Stream& stream) {
  const int32_t half = args.rotary_dim / 2;
  const int64_t work = int64_t{args.heads} * args.rotary_dim;
  ForParts(stream, args.tokens, work, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const float* cos = args.cos + t * half;
      const float* sin = args.sin + t * half;
      for (int64_t head = 0; head < args.heads; ++head) {
        float* x = args.x + t * args.x_stride + head * args.head_dim;
        if (args.interleaved) {
          RotateNeighbours(x, cos, sin, half);
        } else {
          RotateHalves<V>(x, cos, sin, half);
        }
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace
}  // namespace bullpen::kernels
