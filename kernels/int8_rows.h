#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/types.h"

namespace bullpen::kernels {

// Rows of activations rounded to 8-bit integers, for products with block
// types: each block of the type (32 or 256 columns) has a scale, its largest
// |x| / 127, and codes round(x * (127 / largest)), halves to even. A block
// whose largest |x| is below kLeastLargest counts as zero. A block with an
// infinity or a NaN has the scale NaN and codes 0: every product with that row
// is NaN.
//
// A product adds, block by block in ascending order,
//   fma(scale * x_scale, dot, sum), then fma(-(minimum * x_scale), x_sum, sum)
// where dot and x_sum are exact integers: the sums over a group of quant *
// code and of code, if groups have scales of their own; for kProduct the sums
// over the block's groups of factor * dot and minimum factor * x_sum, with the
// block's F16 scale and minimum.
inline constexpr float kLeastLargest = 0x1p-100f;

// Room for one row: codes, scales, sums. `cols` is a multiple of 32.
constexpr int64_t Int8RowBytes(int64_t cols) { return cols / 32 * 44; }

// The plain-loop definition.
void Int8Row(const PanelFormat& format, const float* x, int64_t cols,
             int8_t* codes, float* scales);
// Row `row` of a matrix of a block type . that row.
float PanelDotInt8(const PanelMatrix& w, int64_t row, const int8_t* codes,
                   const float* scales);

// What the oracle multiplies: a row of x as it is, or rounded into `codes`
// (Int8RowBytes) if that is not null and the type is a block type.
class OracleRow {
 public:
  OracleRow(DType dtype, const float* x, int64_t cols, std::byte* codes);
  // Row `row` of a matrix of the type . x.
  float Dot(const PanelMatrix& w, int64_t row) const;

 private:
  const float* x_;
  const int8_t* codes_ = nullptr;  // null: as it is
  const float* scales_ = nullptr;
};

}  // namespace bullpen::kernels
