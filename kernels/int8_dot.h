#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/types.h"

namespace bullpen::kernels {

// What to ask memory for while panels are read: what stands `bytes` behind
// every `every`-th of them, from panel `first` on; nothing if 0.
struct ReadAhead {
  int64_t bytes = 0;
  int32_t every = 1;
  int32_t first = 0;

  int64_t OfPanel(int32_t panel) const {
    return panel % every == first ? bytes : 0;
  }
};

// Some adjacent panels of a block type against a tile of rows of x, rounded to
// integers as int8_rows.h defines. The tile holds for each of the type's
// blocks: the scales [tokens] in F32; of each group the sum of its codes times
// SumTimes, [groups][tokens] in 32 bits, for kProduct [groups / 2][tokens][2]
// in 16; and the codes [columns / 4][tokens][4].
struct Int8Block {
  const std::byte* weights = nullptr;  // first panel
  int32_t panels = 0;
  int32_t cols = 0;
  const std::byte* x = nullptr;
  float* sums = nullptr;  // [panels][tokens][16]
  ReadAhead ahead;
};

// Of a tile's block: 32-bit words of sums for each token.
constexpr int32_t SumWords(const PanelFormat& format) {
  return format.scale == ScaleCode::kProduct ? format.groups() / 2
                                             : format.groups();
}

// The least integer of a code, and how far the largest is above it. (Codes of
// 4 bits have values. Their addresses are not compared: with gcc's sanitizers
// that is no constant expression.)
constexpr int LeastOfCode(const PanelFormat& format) {
  if (format.code_bits == 8) return -128;
  if (format.code_bits != 4) return -format.offset;
  return *std::min_element(format.values, format.values + 16);
}
constexpr int SpanOfCode(const PanelFormat& format) {
  if (format.code_bits != 4) return (1 << format.code_bits) - 1;
  return *std::max_element(format.values, format.values + 16) -
         LeastOfCode(format);
}

// A tile's sums are multiplied by it. Where nothing but the bias of operands
// needs them and 16 bits need not hold them, they are what it makes too little.
constexpr int32_t SumTimes(const PanelFormat& format) {
  const bool for_bias = format.scale != ScaleCode::kProduct && !format.minimum;
  return for_bias ? LeastOfCode(format) : 1;
}

using Int8Function = void (*)(const Int8Block&);

// The loop for a block type and a number of tokens, at most that of the
// instruction set (Avx2Codes::kInt8Tokens, Avx512Codes::kInt8Tokens).
Int8Function ChooseInt8Avx2(DType type, int tokens);
Int8Function ChooseInt8Avx512(DType type, int tokens);

}  // namespace bullpen::kernels
