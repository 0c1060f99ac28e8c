#pragma once

#include <cstdint>

namespace bullpen::kernels {

// y[r][i] = fma((x[r][i] - mean) * s, weight[i], bias[i]) with
// mean = sum(x) / dim, s = 1 / sqrt(sum((x - mean)^2) / dim + eps). Both sums
// as the one of rms_norm.h (the first by additions). x and y may be the same.
struct LayerNormArgs {
  const float* x = nullptr;
  int64_t x_stride = 0;  // floats between tokens
  float* y = nullptr;
  int64_t y_stride = 0;
  const float* weight = nullptr;  // [dim]
  const float* bias = nullptr;    // [dim]
  int32_t tokens = 0;
  int32_t dim = 0;
  float eps = 1e-5f;
};

}  // namespace bullpen::kernels
