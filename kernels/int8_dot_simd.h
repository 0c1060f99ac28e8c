#pragma once

#include <array>
#include <iterator>
#include <utility>

#include "kernels/int8_tile_simd.h"

// The choice of the loop for a type and a number of tokens.

namespace bullpen::kernels {
namespace {

// Block types stand behind the plain ones.
inline constexpr int kFirstBlockType = static_cast<int>(DType::kQ4_0);
inline constexpr int kBlockTypes =
    static_cast<int>(std::size(kPanelFormats)) - kFirstBlockType;

template <typename V, DType kType, int kTokens>
void Int8Panels(const Int8Block& block) {
  Int8Tile<V, kType, kTokens> tile;
  const int64_t bytes = ColumnBytes(kType, block.cols);
  for (int32_t p = 0; p < block.panels; ++p) {
    const std::byte* w = block.weights + p * bytes;
    tile.Run(w, w + bytes, block.ahead.OfPanel(p), block.x,
             block.sums + p * kTokens * kPanelRows);
  }
}

template <typename V>
using Int8Functions = std::array<Int8Function, V::kInt8Tokens>;

// By tokens - 1.
template <typename V, DType kType, int... kIndex>
constexpr Int8Functions<V> Int8FunctionsOf(
    std::integer_sequence<int, kIndex...>) {
  return {Int8Panels<V, kType, kIndex + 1>...};
}

template <typename V, int... kIndex>
Int8Function ChooseInt8Of(int block_type, int tokens,
                          std::integer_sequence<int, kIndex...>) {
  constexpr auto kTokens = std::make_integer_sequence<int, V::kInt8Tokens>();
  static constexpr Int8Functions<V> kFunctions[] = {
      Int8FunctionsOf<V, static_cast<DType>(kFirstBlockType + kIndex)>(
          kTokens)...};
  return kFunctions[block_type][static_cast<size_t>(tokens - 1)];
}

template <typename V>
Int8Function ChooseInt8(DType type, int tokens) {
  return ChooseInt8Of<V>(static_cast<int>(type) - kFirstBlockType, tokens,
                         std::make_integer_sequence<int, kBlockTypes>());
}

}  // namespace
}  // namespace bullpen::kernels
