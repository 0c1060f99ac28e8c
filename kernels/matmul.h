#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/int8_rows.h"
#include "kernels/types.h"

namespace bullpen::kernels {

// y[m][n] = scale * (sum over k of x[m][k] * w[n][k] (+ bias[n]))
//           (+ the old y[m][n]).
// The sum is one chain of fused multiply-adds, k ascending, from +0. With a
// block type it is one over the groups, ascending: the chain of a group's
// integers, from +0, times its scale; then, if the type has minimums, minus
// the group's one times GroupSum of its x (quant_panels.h). Then bias (if
// any) is added to it, the result multiplied by scale, then the old y added
// (if `add`). With room for x_codes a block type multiplies x rounded to
// integers instead: then int8_rows.h defines the sum. So the result depends on
// nothing else: not on m, the number of rows, threads, or the instruction set.
struct MatMulArgs {
  const float* x = nullptr;     // [tokens, w.cols], x_stride between rows
  int64_t x_stride = 0;         // in floats
  PanelMatrix w = {};           // [rows, cols] in panels
  const float* bias = nullptr;  // [w.rows] or null
  float* y = nullptr;           // [tokens, w.rows], y_stride between rows
  int64_t y_stride = 0;
  int32_t tokens = 0;  // may be 0
  // Scratch, aligned as floats are, heads * tokens * Int8RowBytes(w.cols).
  // Null: x stays float.
  std::byte* x_codes = nullptr;
  float scale = 1.0f;
  bool add = false;
  // With more than one head, w is the first of `heads` matrices that follow
  // each other; head h multiplies x + h * x_head_stride by matrix h into
  // y + h * y_head_stride, and there is no bias.
  int32_t heads = 1;
  int64_t x_head_stride = 0;
  int64_t y_head_stride = 0;
};

// The product of one head alone.
inline MatMulArgs HeadOf(const MatMulArgs& args, int64_t head) {
  MatMulArgs one = args;
  one.x += head * args.x_head_stride;
  one.w.data = static_cast<const std::byte*>(args.w.data) +
               head * PanelBytes(args.w.dtype, args.w.rows, args.w.cols);
  one.y += head * args.y_head_stride;
  if (one.x_codes != nullptr) {
    one.x_codes += head * args.tokens * Int8RowBytes(args.w.cols);
  }
  one.heads = 1;
  return one;
}

}  // namespace bullpen::kernels
