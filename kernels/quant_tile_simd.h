#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/dot_tile_simd.h"

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
                V::FromInt8(V::LoadBytes(at)));
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

// The dot products of 16 columns of a group, added to `acc`.
template <typename V, int kBits, int kPanels, int kTokens>
void DotColumns(const std::byte* codes, int64_t panel_bytes, const float* x,
                const typename V::Table& table, typename V::F* acc) {
  using F = typename V::F;
  constexpr int kSums = kPanels * kTokens;
  F sums[kSums];
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) sums[i] = acc[i];
  constexpr int kStep = kBits == 4 ? 2 : 1;  // columns of 16 bytes
  for (int c = 0; c < kPanelRows; c += kStep) {
    const std::byte* column = codes + c / kStep * kPanelRows;
#pragma GCC unroll 2
    for (int odd = 0; odd < kStep; ++odd) {
      F weight[kPanels];
#pragma GCC unroll 32
      for (int p = 0; p < kPanels; ++p) {
        const typename V::Bytes bytes = V::LoadBytes(column + p * panel_bytes);
        if constexpr (kBits == 8) {
          weight[p] = V::FromInt8(bytes);
        } else {
          weight[p] = odd == 0 ? V::LowValues(bytes, table)
                               : V::HighValues(bytes, table);
        }
      }
#pragma GCC unroll 32
      for (int i = 0; i < kSums; ++i) {
        const int t = i / kPanels, p = i % kPanels;
        sums[p * kTokens + t] =
            V::Accumulate(V::Set(x[t * kPanelRows + c + odd]), weight[p],
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
  const typename V::Table table =
      V::MakeTable(format.values != nullptr ? format.values : kUnsignedValues);
  float* sums = block.sums + int64_t{panel} * kTokens * kPanelRows;
  if (!block.resume) {
    std::fill_n(sums, kPanels * kTokens * kPanelRows, 0.0f);
  }
  const std::byte* w = block.weights + panel * block.panel_bytes;
  const int32_t chunk_bytes = kPanelRows * kPanelRows * kBits / 8;
  const int64_t distance = kPrefetchBytes / kPanels;
  const std::byte* end =
      w + block.columns / format.block_cols * int64_t{format.block_bytes()};
  const int64_t to_next_tile = kPanels * block.panel_bytes - (end - w);
  const float* x = block.x;
  const float* x_sums = block.x_sums;
  for (; w < end; w += format.block_bytes()) {
    const std::byte* group = w + format.block_header_bytes();
    for (int32_t g = 0; g < format.block_cols / format.group_cols; ++g) {
      F dots[kPanels * kTokens];
      for (F& dot : dots) dot = V::Zero();
      const std::byte* codes = group + format.group_header_bytes();
      for (int32_t c = 0; c < format.group_cols; c += kPanelRows) {
        const int64_t ahead =
            end - codes > distance ? distance : distance + to_next_tile;
        for (int p = 0; p < kPanels; ++p) {
          for (int32_t line = 0; line < chunk_bytes; line += 64) {
            __builtin_prefetch(codes + p * block.panel_bytes + ahead + line);
          }
        }
        DotColumns<V, kBits, kPanels, kTokens>(codes, block.panel_bytes, x,
                                               table, dots);
        codes += chunk_bytes;
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
