#include "kernels/types.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace bullpen::kernels {
namespace {

float F16ToFloat(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1F;
  const uint32_t mantissa = bits & 0x3FF;
  if (exponent == 0x1F) {
    // Infinity; or a NaN, made quiet as the processor's own conversion does.
    const uint32_t quiet = mantissa != 0 ? 0x400000 : 0;
    return std::bit_cast<float>(sign | 0x7F800000 | quiet | mantissa << 13);
  }
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t FloatToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  uint32_t half = 0;
  if (magnitude > 0x7F800000) {
    half = 0x7E00 | ((magnitude >> 13) & 0x3FF);
  } else if (magnitude >= 0x477FF000) {  // 65520 and above round to infinity.
    half = 0x7C00;
  } else if (magnitude < 0x38800000) {  // Below 2^-14: a denormal half.
    // The sum's unit in the last place is 2^-24, so the addition rounds.
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    half = std::bit_cast<uint32_t>(sum) - std::bit_cast<uint32_t>(0.5f);
  } else {
    const uint32_t odd = (magnitude >> 13) & 1;
    half = (magnitude - 0x38000000 + 0xFFF + odd) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}

uint16_t FloatToBF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40);
  const uint32_t odd = (bits >> 16) & 1;
  return static_cast<uint16_t>((bits + 0x7FFF + odd) >> 16);
}

template <DType kType, typename Element>
void PackElements(const Element* source, int64_t rows, int64_t cols,
                  int64_t row_stride, Element* out) {
  constexpr int64_t kLanes = BandPanels(kType) * kPanelRows;
  constexpr int64_t kColumns = 32;  // at a time, of all lanes: both fit L1
  for (int64_t first = 0; first < rows; first += kLanes) {
    const int64_t lanes = RowBand(kType, first, rows).lanes;
    for (int64_t begin = 0; begin < cols; begin += kColumns) {
      const int64_t end = std::min(begin + kColumns, cols);
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const int64_t row = first + lane;
        Element* column = out + first * cols + lane;
        for (int64_t c = begin; c < end; ++c) {
          column[c * lanes] =
              row < rows ? source[row * row_stride + c] : Element{0};
        }
      }
    }
  }
}

}  // namespace

void PackPanels(DType dtype, const void* source, int64_t rows, int64_t cols,
                int64_t row_stride, void* out) {
  CHECK(rows >= 0 && cols >= 0 && row_stride >= cols)
      << "rows " << rows << ", cols " << cols << ", row_stride " << row_stride;
  if (dtype == DType::kF32) {
    // As integers, so that no conversion touches a NaN.
    PackElements<DType::kF32>(static_cast<const uint32_t*>(source), rows, cols,
                              row_stride, static_cast<uint32_t*>(out));
  } else {
    PackElements<DType::kF16>(static_cast<const uint16_t*>(source), rows, cols,
                              row_stride, static_cast<uint16_t*>(out));
  }
}

float ToFloat(uint16_t bits, DType half_type) {
  CHECK(half_type != DType::kF32) << "F32 is no half type";
  if (half_type == DType::kF16) return F16ToFloat(bits);
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

uint16_t FromFloat(float value, DType half_type) {
  CHECK(half_type != DType::kF32) << "F32 is no half type";
  return half_type == DType::kF16 ? FloatToF16(value) : FloatToBF16(value);
}

}  // namespace bullpen::kernels
