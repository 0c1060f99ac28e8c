#pragma once

#include <cstdint>

namespace bullpen::kernels {

// h[t] += scale * sum over rank r ascending of weights[t][r] * y[t*k + r]
// (a chain of fused multiply-adds from +0, a product, an add): rank order, so
// that it does not matter which expert arrived first.
struct CombineArgs {
  const float* y = nullptr;        // [tokens * k, dim]
  const float* weights = nullptr;  // [tokens, k]
  float* h = nullptr;              // [tokens, dim]
  int32_t tokens = 0;
  int32_t k = 0;
  int32_t dim = 0;
  float scale = 1.0f;
};

}  // namespace bullpen::kernels
