#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/dot_tile_simd.h"
#include "kernels/prefetch.h"

// The inner loop of products with block types: of each group the chain of
// fused multiply-adds with its integers, then one with its scale. The weights
// become floats in registers.

namespace bullpen::kernels {
namespace {

// A vector of the group's scales, or of its minimums.
template <typename V>
typename V::F LoadScales(ScaleCode code, const std::byte* at,
                         const std::byte* of_block) {
  if (code == ScaleCode::kF16) return V::template LoadAs<DType::kF16>(at, 0);
  if (code == ScaleCode::kBF16) return V::template LoadAs<DType::kBF16>(at, 0);
  if (code == ScaleCode::kF32) return V::template LoadAs<DType::kF32>(at, 0);
  return V::Mul(V::template LoadAs<DType::kF16>(of_block, 0),
                V::ToFloat(V::LoadInt8(at)));
}

// Adds what one group gives to the sums of a tile.
template <typename V, int kPanels, int kTokens>
void AddGroup(const DotBlock& block, const PanelFormat& format,
              const std::byte* w, const std::byte* group, const float* x_sums,
              const typename V::F* dots, float* sums) {
  const int64_t minimums = kPanelRows * format.scale_bytes();
  for (int p = 0; p < kPanels; ++p) {
    const typename V::F scale = LoadScales<V>(format.scale, group, w);
    for (int t = 0; t < kTokens; ++t) {
      float* sum = sums + (p * kTokens + t) * kPanelRows;
      V::Store(sum, V::Fma(scale, dots[p * kTokens + t], V::Load(sum)));
    }
    if (format.minimum) {
      const typename V::F minimum = V::Negate(
          LoadScales<V>(format.scale, group + minimums, w + 2 * kPanelRows));
      for (int t = 0; t < kTokens; ++t) {
        float* sum = sums + (p * kTokens + t) * kPanelRows;
        V::Store(sum, V::Fma(minimum, V::Set(x_sums[t]), V::Load(sum)));
      }
    }
    w += block.panel_bytes;
    group += block.panel_bytes;
  }
}

// The codes of columns [4v, 4v + 4) as signed integers.
template <typename V, int kBits>
typename V::Codes SignedCodes(const std::byte* codes, const PanelFormat& format,
                              int v, typename V::Map map) {
  constexpr bool kMapped = kBits == 4;
  const typename V::Codes loaded =
      V::template LoadCodes<kBits, kMapped>(codes, v, map);
  return kBits == 5 || kBits == 6 ? V::Minus(loaded, format.offset) : loaded;
}

// The dot products of 16 columns of a group, from `first` on, added to `acc`.
template <typename V, int kBits, int kPanels, int kTokens, int kFirst>
void DotColumns(const DotBlock& block, const std::byte* codes, const float* x,
                const typename V::Map& map, typename V::F* acc) {
  using F = typename V::F;
  constexpr int kSums = kPanels * kTokens;
  F sums[kSums];
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) sums[i] = acc[i];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    typename V::Codes quants[kPanels];
#pragma GCC unroll 32
    for (int p = 0; p < kPanels; ++p) {
      quants[p] = SignedCodes<V, kBits>(codes + p * block.panel_bytes,
                                        *block.format, kFirst / 4 + v, map);
    }
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b) {
      F weight[kPanels];
#pragma GCC unroll 32
      for (int p = 0; p < kPanels; ++p) weight[p] = V::Column(quants[p], b);
#pragma GCC unroll 32
      for (int i = 0; i < kSums; ++i) {
        const int t = i / kPanels, p = i % kPanels;
        sums[p * kTokens + t] =
            V::Accumulate(V::Set(x[t * kPanelRows + 4 * v + b]), weight[p],
                          sums[p * kTokens + t]);
      }
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) acc[i] = sums[i];
}

template <typename V, int kBits, int kPanels, int kTokens>
void QuantTile(const DotBlock& block, int panel) {
  using F = typename V::F;
  const PanelFormat& format = *block.format;
  const typename V::Map map =
      V::MakeMap(format.values != nullptr ? format.values : kUnsignedValues, 0);
  float* sums = block.sums + int64_t{panel} * kTokens * kPanelRows;
  if (!block.resume) {
    std::fill_n(sums, kPanels * kTokens * kPanelRows, 0.0f);
  }
  const std::byte* w =
      block.weights + panel * block.panel_bytes +
      block.first / format.block_cols * int64_t{format.block_bytes()};
  const int64_t distance = kPrefetch.floats / kPanels;
  const std::byte* end =
      w + block.columns / format.block_cols * int64_t{format.block_bytes()};
  const int64_t to_next_tile = kPanels * block.panel_bytes - (end - w);
  const float* x = block.x;
  const float* x_sums = block.x_sums;
  for (; w < end; w += format.block_bytes()) {
    const std::byte* group = w + format.block_header_bytes();
    for (int32_t g = 0; g < format.groups(); ++g) {
      PrefetchGroup<kPanels>(
          group, block.panel_bytes,
          end - group > distance ? distance : distance + to_next_tile,
          format.group_bytes());
      F dots[kPanels * kTokens];
      for (F& dot : dots) dot = V::Zero();
      const std::byte* codes = group + format.group_header_bytes();
      DotColumns<V, kBits, kPanels, kTokens, 0>(block, codes, x, map, dots);
      x += kTokens * kPanelRows;
      if (format.group_cols == 2 * kPanelRows) {
        DotColumns<V, kBits, kPanels, kTokens, kPanelRows>(block, codes, x, map,
                                                           dots);
        x += kTokens * kPanelRows;
      }
      AddGroup<V, kPanels, kTokens>(block, format, w, group, x_sums, dots,
                                    sums);
      if (format.minimum) x_sums += kTokens;
      group += format.group_bytes();
    }
  }
}

}  // namespace
}  // namespace bullpen::kernels
