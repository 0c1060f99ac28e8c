#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace bullpen::kernels {

// y[m][n] = sum over k of x[m][k] * w[n][k] (+ bias[n]) (+ the old y[m][n]).
// The sum is one chain of fused multiply-adds, k ascending, from +0; bias (if
// any) is added to it, then the old y (if `add`). So the result depends on
// nothing else: not on m, the number of rows, threads, or the instruction set.
struct MatMulArgs {
  const float* x = nullptr;     // [tokens, w.cols], x_stride between rows
  int64_t x_stride = 0;         // in floats
  PanelMatrix w = {};           // [rows, cols] in panels
  const float* bias = nullptr;  // [w.rows] or null
  float* y = nullptr;           // [tokens, w.rows], y_stride between rows
  int64_t y_stride = 0;
  int32_t tokens = 0;  // may be 0
  bool add = false;
};

}  // namespace bullpen::kernels
