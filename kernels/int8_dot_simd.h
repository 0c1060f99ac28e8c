#pragma once

#include <utility>

#include "kernels/int8_tile_simd.h"

// The choice of the loop for a format and a number of tokens.

namespace bullpen::kernels {
namespace {

template <typename V, typename Kind, int kTokens>
void Int8Panels(const Int8Block& block) {
  Int8Tile<V, Kind, kTokens> tile(block);
  const int64_t bytes = int64_t{block.cols} / block.format->block_cols *
                        block.format->block_bytes();
  for (int32_t p = 0; p < block.panels; ++p) {
    const std::byte* w = block.weights + p * bytes;
    tile.Run(w, w + bytes, block.ahead.OfPanel(p), block.x,
             block.sums + p * kTokens * kPanelRows);
  }
}

template <typename V, typename Kind, int... kIndex>
Int8Function ChooseInt8Tokens(int tokens,
                              std::integer_sequence<int, kIndex...>) {
  static constexpr Int8Function kFunctions[] = {
      Int8Panels<V, Kind, kIndex + 1>...};
  return kFunctions[tokens - 1];
}

template <typename V, int kBits, bool kMapped, int kVectors,
          bool kSigned = false>
Int8Function ChooseInt8Kind(int tokens) {
  return ChooseInt8Tokens<V, CodeKind<kBits, kMapped, kVectors, kSigned>>(
      tokens, std::make_integer_sequence<int, V::kInt8Tokens>());
}

}  // namespace
}  // namespace bullpen::kernels
