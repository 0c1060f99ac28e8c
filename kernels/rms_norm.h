#pragma once

#include <cstdint>

namespace bullpen::kernels {

// y[r][i] = (x[r][i] * s) * weight[i], s = 1 / sqrt(sum(x^2) / dim + eps).
// The sum of squares: eight partial sums (element i goes to partial i % 8, by
// fused multiply-add, i ascending), then the tree
// ((p0+p4)+(p2+p6)) + ((p1+p5)+(p3+p7)). x and y may be the same.
struct RmsNormArgs {
  const float* x = nullptr;
  int64_t x_stride = 0;  // floats between tokens
  int32_t heads = 1;     // rows per token, `dim` apart: per-head norm
  float* y = nullptr;
  int64_t y_stride = 0;
  const float* weight = nullptr;  // [dim]; null = ones
  int32_t tokens = 0;
  int32_t dim = 0;
  float eps = 1e-6f;
};

}  // namespace bullpen::kernels
