#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/block_format.h"
#include "kernels/types.h"

namespace bullpen::kernels {

// Rows of `source` blocks, row-major.
struct BlockRows {
  const BlockFormat& source;
  const std::byte* blocks = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
};

// Copies the rows, value for value, to where rows from `first_row` on stand in
// panels of a block type at `out`, which was zero there. `type` is that of the
// same name, or Q8_ANY.
void PackBlockRows(DType type, const BlockRows& rows, int64_t first_row,
                   std::byte* out);

// The type whose panels hold that format; F32, F16 and BF16 for the plain.
DType PanelTypeOf(const BlockFormat& format);

// Element (row, col) of a matrix of any type.
float PanelElement(const PanelMatrix& w, int64_t row, int64_t col);

// Row `row` . x in the order that matmul.h defines, for any type.
float PanelDot(const PanelMatrix& w, int64_t row, const float* x);

// The panel in which a row of a block type stands.
inline const std::byte* PanelOf(const PanelMatrix& w, int64_t row) {
  return static_cast<const std::byte*>(w.data) +
         row / kPanelRows * ColumnBytes(w.dtype, w.cols);
}

// One group of one lane. Of kProduct, scale = of_block * factor and minimum =
// minimum_of_block * minimum_factor.
struct LaneGroup {
  float scale = 0.0f;
  float minimum = 0.0f;  // 0 if the type has none
  float of_block = 0.0f;
  float minimum_of_block = 0.0f;
  int32_t factor = 0;
  int32_t minimum_factor = 0;
  const std::byte* codes = nullptr;
};

// Group `index` (from the first column on) of a lane of a panel.
LaneGroup LoadGroup(const PanelFormat& format, const std::byte* panel, int lane,
                    int64_t index);
// The integer of column `col` of the group.
int GroupQuant(const PanelFormat& format, const LaneGroup& group, int lane,
               int col);

// The sum of x[0 .. count), count 16 or 32: the two halves of 32 are added
// element by element, then 16 sums in halves, down to one.
float GroupSum(const float* x, int count);

}  // namespace bullpen::kernels
