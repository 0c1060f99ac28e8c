#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/types.h"

// Single elements of typed arrays, for the oracle.
namespace bullpen::kernels {

inline float LoadElement(DType dtype, const void* base, int64_t index) {
  if (dtype == DType::kF32) return static_cast<const float*>(base)[index];
  return ToFloat(static_cast<const uint16_t*>(base)[index], dtype);
}

inline void StoreElement(DType dtype, void* base, int64_t index, float value) {
  if (dtype == DType::kF32) {
    static_cast<float*>(base)[index] = value;
  } else {
    static_cast<uint16_t*>(base)[index] = FromFloat(value, dtype);
  }
}

// Element (row, col) of a matrix of a plain type.
inline float LoadPlain(const PanelMatrix& w, int64_t row, int64_t col) {
  const RowBand band(w.dtype, row, w.rows);
  return LoadElement(
      w.dtype, w.data,
      band.first_row * w.cols + col * band.lanes + row - band.first_row);
}

}  // namespace bullpen::kernels
