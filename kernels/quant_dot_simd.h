#pragma once

#include <utility>

#include "kernels/quant_tile_simd.h"

namespace bullpen::kernels {
namespace {

template <typename V, int kBits, int kPanels, int kTokens>
void QuantPanelsFrom(const DotBlock& block, int panel) {
  for (; panel + kPanels <= block.panels; panel += kPanels) {
    QuantTile<V, kBits, kPanels, kTokens>(block, panel);
  }
  if constexpr (kPanels > 1) {
    QuantPanelsFrom<V, kBits, kPanels / 2, kTokens>(block, panel);
  }
}

template <typename V, int kBits, int kTokens>
void QuantPanels(const DotBlock& block) {
  QuantPanelsFrom<V, kBits, PanelsAtATime<V>(kTokens), kTokens>(block, 0);
}

template <typename V, int kBits, int... kIndex>
DotFunction ChooseQuantTokens(int tokens,
                              std::integer_sequence<int, kIndex...>) {
  static constexpr DotFunction kFunctions[] = {
      QuantPanels<V, kBits, kIndex + 1>...};
  return kFunctions[tokens - 1];
}

// The loop for a block type.
template <typename V>
DotFunction ChooseQuantDot(const PanelFormat& format, int tokens) {
  constexpr auto kTokens = std::make_integer_sequence<int, V::kDotTokens>();
  switch (format.code_bits) {
    case 4:
      return ChooseQuantTokens<V, 4>(tokens, kTokens);
    case 5:
      return ChooseQuantTokens<V, 5>(tokens, kTokens);
    case 6:
      return ChooseQuantTokens<V, 6>(tokens, kTokens);
    default:
      return ChooseQuantTokens<V, 8>(tokens, kTokens);
  }
}

}  // namespace
}  // namespace bullpen::kernels
