#pragma once

#include <cstdint>

namespace bullpen::kernels {

// Rotates the first `rotary_dim` elements of each head, in place:
// half-split pairs (i, i + rotary_dim/2) or, interleaved, (2i, 2i+1):
//   a' = a*cos - b*sin,  b' = b*cos + a*sin
// computed as fma(a, cos, -(b*sin)) and fma(b, cos, a*sin).
struct RopeArgs {
  float* x = nullptr;    // [tokens, heads, head_dim], x_stride
  int64_t x_stride = 0;  // floats between tokens
  int32_t tokens = 0;
  int32_t heads = 0;
  int32_t head_dim = 0;
  int32_t rotary_dim = 0;  // even, <= head_dim
  bool interleaved = false;
  const float* cos = nullptr;  // [tokens, rotary_dim / 2]
  const float* sin = nullptr;
};

}  // namespace bullpen::kernels
