#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/panel_format.h"

namespace bullpen::kernels {

// A weight matrix W [rows, cols] (y = x W^T) in panels: kPanelRows rows are
// interleaved, and missing rows of the last panel are zero. Panels of a block
// type stand one after the other, as panel_format.h says. Those of a plain type
// stand in bands of n = 16 BandPanels rows, the last of which has what is left:
//   band r / n, then column c, then lane r % n
// is where element (r, c) stands, so that one stream of memory serves several
// independent sums. This is layout "panel16", version 4, of packed models (in
// version 3 codes of 5 and 6 bits stood in two planes; in version 2 bands were
// one panel wide; in version 1 block types stood one column after the other).
inline constexpr std::string_view kPanelLayoutName = "panel16.v4";

// Panels of a plain type whose columns stand side by side: a column of all is
// two cache lines.
constexpr int BandPanels(DType type) {
  return 128 / (kPanelRows * DTypeBytes(type));
}
// Rows of the widest band.
inline constexpr int kBandRows = 64;

struct PanelMatrix {
  const void* data = nullptr;  // 64-byte aligned
  DType dtype = DType::kF32;
  int32_t rows = 0;
  int32_t cols = 0;

  int32_t panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
};

// The band of a plain matrix in which a row stands.
struct RowBand {
  constexpr RowBand(DType type, int64_t row, int64_t rows) {
    const int64_t most = BandPanels(type) * kPanelRows;
    first_row = row / most * most;
    const int64_t left = rows - first_row;
    lanes = std::min(most, (left + kPanelRows - 1) / kPanelRows * kPanelRows);
  }
  int64_t first_row;  // its elements begin at first_row * cols
  int64_t lanes;      // between two columns
};

constexpr int64_t PanelBytes(DType type, int64_t rows, int64_t cols) {
  return (rows + kPanelRows - 1) / kPanelRows * ColumnBytes(type, cols);
}

// Copies row-major `source` [rows, cols] of the plain `dtype` into panels at
// `out` (PanelBytes). `row_stride` in elements. Rows of a larger matrix begin
// with a band, and end with one or with the matrix.
void PackPanels(DType dtype, const void* source, int64_t rows, int64_t cols,
                int64_t row_stride, void* out);

// Exact widening, and rounding to nearest even.
float ToFloat(uint16_t bits, DType half_type);
uint16_t FromFloat(float value, DType half_type);

}  // namespace bullpen::kernels
