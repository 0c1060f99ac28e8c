#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/prefetch.h"
#include "kernels/types.h"

// The one inner loop of matmul and of the experts: each output is one chain of
// fused multiply-adds over the columns; panels and tokens give the independent
// chains that hide its latency.

namespace bullpen::kernels {
namespace {

// A block of columns of some adjacent panels against a tile of tokens.
struct DotBlock {
  const std::byte* weights = nullptr;  // the panels, all their columns
  int64_t panel_bytes = 0;
  int32_t panels = 0;
  int32_t first = 0;  // column
  int32_t columns = 0;
  const float* x = nullptr;  // [columns / 16][tokens][16]
  float* sums = nullptr;     // [panels][tokens][16]
  bool resume = false;       // go on from `sums` instead of from zero
  bool cold = true;          // the weights may be in no cache yet
  // For block types.
  const PanelFormat* format = nullptr;
  const float* x_sums = nullptr;  // [groups][tokens], if there are minimums
};

// The unrolled loops are flat, with constant bounds: so gcc 12 keeps the sums
// in registers (check the assembly of a change here for stores to the stack).
template <typename V, DType kType, int kPanels, int kTokens>
void DotTile(const DotBlock& block, int panel) {
  using F = typename V::F;
  constexpr int kBand = BandPanels(kType);
  constexpr int kPanelBytes = kPanelRows * DTypeBytes(kType);  // a column's
  constexpr int kSums = kPanels * kTokens;
  const int in_band = panel % kBand;
  const int first_panel = panel - in_band;
  const int64_t column_bytes =
      kPanelBytes *
      (kPanels == kBand ? kBand : std::min(kBand, block.panels - first_panel));
  const std::byte* w = block.weights + first_panel * block.panel_bytes +
                       block.first * column_bytes + in_band * kPanelBytes;
  float* sums = block.sums + int64_t{panel} * kTokens * kPanelRows;
  F acc[kSums];  // [kPanels][kTokens]
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) {
    acc[i] = block.resume ? V::Load(sums + i * kPanelRows) : V::Zero();
  }
  // A tile that computes little takes a whole band as one stream, which the
  // CPU's own prefetchers may serve best. Another asks for its part of the next
  // band, into the second-level cache. Behind the block's end the next band's
  // columns are wanted.
  constexpr bool kStream = kPanels == kBand && kTokens <= 6;
  const int64_t block_bytes = block.columns * column_bytes;
  const int64_t to_next_band = kBand * block.panel_bytes - block_bytes;
  const int64_t of_stream =
      kType == DType::kF32 ? kPrefetch.singles : kPrefetch.halves;
  const int64_t distance =
      block.cold ? std::min(kStream ? of_stream : block_bytes, block_bytes) : 0;
  const float* x = block.x;
  for (int32_t left = block.columns; left > 0; left -= kPanelRows) {
    const int32_t n = std::min<int32_t>(left, kPanelRows);
    const int64_t ahead =
        left * column_bytes > distance ? distance : distance + to_next_band;
    for (int32_t c = 0; c < n; ++c, w += column_bytes) {
      if (distance > 0) {
        for (int line = 0; line < kPanels * kPanelBytes; line += 64) {
          __builtin_prefetch(w + ahead + line, 0, kStream ? 3 : 2);
        }
      }
      F weight[kPanels];
#pragma GCC unroll 32
      for (int p = 0; p < kPanels; ++p) {
        weight[p] = V::template LoadAs<kType>(w + p * kPanelBytes, 0);
      }
#pragma GCC unroll 32
      for (int i = 0; i < kSums; ++i) {
        const int t = i / kPanels, p = i % kPanels;
        acc[p * kTokens + t] = V::Accumulate(V::Set(x[t * kPanelRows + c]),
                                             weight[p], acc[p * kTokens + t]);
      }
    }
    x += kTokens * kPanelRows;
  }
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) V::Store(sums + i * kPanelRows, acc[i]);
}

// Panels at a time for a number of tokens: a power of two.
template <typename V>
constexpr int PanelsAtATime(int tokens) {
  if (tokens == 1) return V::kDecodePanels;
  return V::kDotSums >= 4 * tokens ? 4 : V::kDotSums >= 2 * tokens ? 2 : 1;
}

template <typename V, DType kType, int kPanels, int kTokens>
void DotPanelsFrom(const DotBlock& block, int panel) {
  for (; panel + kPanels <= block.panels; panel += kPanels) {
    DotTile<V, kType, kPanels, kTokens>(block, panel);
  }
  if constexpr (kPanels > 1) {
    DotPanelsFrom<V, kType, kPanels / 2, kTokens>(block, panel);
  }
}

template <typename V, DType kType, int kTokens>
void DotPanels(const DotBlock& block) {
  constexpr int kPanels =
      std::min(PanelsAtATime<V>(kTokens), BandPanels(kType));
  DotPanelsFrom<V, kType, kPanels, kTokens>(block, 0);
}

using DotFunction = void (*)(const DotBlock&);

template <typename V, DType kType, int... kIndex>
DotFunction ChooseTokens(int tokens, std::integer_sequence<int, kIndex...>) {
  static constexpr DotFunction kFunctions[] = {
      DotPanels<V, kType, kIndex + 1>...};
  return kFunctions[tokens - 1];
}

// The loop for a plain type.
template <typename V>
DotFunction ChoosePlainDot(DType dtype, int tokens) {
  constexpr auto kTokens = std::make_integer_sequence<int, V::kDotTokens>();
  if (dtype == DType::kF16) {
    return ChooseTokens<V, DType::kF16>(tokens, kTokens);
  }
  if (dtype == DType::kBF16) {
    return ChooseTokens<V, DType::kBF16>(tokens, kTokens);
  }
  return ChooseTokens<V, DType::kF32>(tokens, kTokens);
}

}  // namespace
}  // namespace bullpen::kernels
