#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bullpen::kernels {

// Element types that kernels compute with. Names as in safetensors headers.
enum class DType : uint8_t { kF32, kF16, kBF16 };

constexpr int DTypeBytes(DType type) { return type == DType::kF32 ? 4 : 2; }
constexpr std::string_view DTypeName(DType type) {
  return type == DType::kF32 ? "F32" : type == DType::kF16 ? "F16" : "BF16";
}

// A weight matrix W [rows, cols] (y = x W^T) in panels: kPanelRows rows are
// interleaved, so that element (r, c) stands at
//   panel r / 16, then column c, then lane r % 16,
// and one column of a panel is one or two vectors. Missing rows of the last
// panel are zero. This is layout "panel16", version 1, of packed models.
inline constexpr int kPanelRows = 16;
inline constexpr std::string_view kPanelLayoutName = "panel16.v1";

struct PanelMatrix {
  const void* data = nullptr;  // 64-byte aligned
  DType dtype = DType::kF32;
  int32_t rows = 0;
  int32_t cols = 0;

  int32_t panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
};

constexpr int64_t PanelBytes(DType type, int64_t rows, int64_t cols) {
  return (rows + kPanelRows - 1) / kPanelRows * kPanelRows * cols *
         DTypeBytes(type);
}

// Copies row-major `source` [rows, cols] of `dtype` into panels at `out`
// (PanelBytes). `row_stride` in elements.
void PackPanels(DType dtype, const void* source, int64_t rows, int64_t cols,
                int64_t row_stride, void* out);

// Exact widening, and rounding to nearest even.
float ToFloat(uint16_t bits, DType half_type);
uint16_t FromFloat(float value, DType half_type);

}  // namespace bullpen::kernels
