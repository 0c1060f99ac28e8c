#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/panel_format.h"

namespace bullpen::kernels {

// A weight matrix W [rows, cols] (y = x W^T) in panels: kPanelRows rows are
// interleaved. Element (r, c) of a plain type stands at
//   panel r / 16, then column c, then lane r % 16,
// and one column of a panel is one or two vectors; block types are laid out as
// panel_format.h says. Missing rows of the last panel are zero. This is layout
// "panel16", version 2, of packed models (in version 1 block types stood one
// column after the other).
inline constexpr std::string_view kPanelLayoutName = "panel16.v2";

struct PanelMatrix {
  const void* data = nullptr;  // 64-byte aligned
  DType dtype = DType::kF32;
  int32_t rows = 0;
  int32_t cols = 0;

  int32_t panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
};

constexpr int64_t PanelBytes(DType type, int64_t rows, int64_t cols) {
  return (rows + kPanelRows - 1) / kPanelRows * ColumnBytes(type, cols);
}

// Copies row-major `source` [rows, cols] of the plain `dtype` into panels at
// `out` (PanelBytes). `row_stride` in elements.
void PackPanels(DType dtype, const void* source, int64_t rows, int64_t cols,
                int64_t row_stride, void* out);

// Exact widening, and rounding to nearest even.
float ToFloat(uint16_t bits, DType half_type);
uint16_t FromFloat(float value, DType half_type);

}  // namespace bullpen::kernels
