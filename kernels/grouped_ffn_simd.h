#pragma once

#include "kernels/activation_simd.h"
#include "kernels/ffn_parts_simd.h"
#include "kernels/ffn_round_simd.h"
#include "kernels/parallel.h"

namespace bullpen::kernels {
namespace {

// A bias of the group's expert; null if it has none.
inline const float* BiasAt(const ExpertShape& shape, const ExpertRows& group,
                           int64_t offset) {
  if (!shape.bias) return nullptr;
  return reinterpret_cast<const float*>(
      static_cast<const std::byte*>(group.blob) + offset);
}

// `sum` plus the n values at bias + row, if there is a bias.
template <typename V>
typename V::F Biased(const float* bias, int32_t row, int n, typename V::F sum) {
  return bias != nullptr ? V::Add(sum, LoadLanes<V>(bias + row, n)) : sum;
}

// h = f(gate x, up x) for part i of all groups' inner rows; part `next`
// follows.
template <typename V>
void GateUpPart(const GroupedFfnArgs& args, const PanelParts& parts, int64_t i,
                int64_t next) {
  const ExpertShape& shape = args.shape;
  const FfnMatrix matrix{shape.dtype, shape.inner, shape.dim};
  const ExpertRows& group = args.groups[i / parts.count];
  const PanelSpan gate = PartOf(args, matrix, parts, i);
  PanelSpan up = gate;
  up.data += shape.gate_bytes();
  const int64_t to_next = PartOf(args, matrix, parts, next).data - gate.data;
  const int32_t first_panel =
      static_cast<int32_t>(i % parts.count) * parts.width;
  const float* gate_bias = BiasAt(shape, group, shape.gate_bias_offset());
  const float* up_bias = BiasAt(shape, group, shape.up_bias_offset());
  alignas(64) float gates[kDotPanels * V::kDotTokens * kPanelRows];
  alignas(64) float ups[kDotPanels * V::kDotTokens * kPanelRows];
  const TokenTiles tiles = TilesOf<V>(args, group, shape.dtype);
  for (int64_t t = 0; t < tiles.count(); ++t) {
    const FfnTile tile(tiles, t, to_next);
    FfnDots<V>(args, FfnRows::kX, gate, tile, gates);
    FfnDots<V>(args, FfnRows::kX, up, tile, ups);
    for (int32_t p = 0; p < gate.count; ++p) {
      const int32_t row = (first_panel + p) * kPanelRows;
      const int n = std::min(shape.inner - row, kPanelRows);
      for (int r = 0; r < tile.rows; ++r) {
        const int at = (p * tile.rows + r) * kPanelRows;
        StoreLanes<V>(
            args.scratch + (tile.first + r) * 2 * shape.inner + row, n,
            Activate<V>(args.activation,
                        Biased<V>(gate_bias, row, n, V::Load(gates + at)),
                        Biased<V>(up_bias, row, n, V::Load(ups + at))));
      }
    }
  }
}

// y = down h for part i of all groups' dim rows; part `next` follows.
template <typename V>
void DownPart(const GroupedFfnArgs& args, const PanelParts& parts, int64_t i,
              int64_t next) {
  const ExpertShape& shape = args.shape;
  const FfnMatrix matrix{shape.down_dtype(), shape.dim, shape.inner,
                         shape.down_offset()};
  const ExpertRows& group = args.groups[i / parts.count];
  const PanelSpan down = PartOf(args, matrix, parts, i);
  const int64_t to_next = PartOf(args, matrix, parts, next).data - down.data;
  const int32_t first_panel =
      static_cast<int32_t>(i % parts.count) * parts.width;
  const float* bias = BiasAt(shape, group, shape.down_bias_offset());
  alignas(64) float sums[kDotPanels * V::kDotTokens * kPanelRows];
  const TokenTiles tiles = TilesOf<V>(args, group, shape.down_dtype());
  for (int64_t t = 0; t < tiles.count(); ++t) {
    const FfnTile tile(tiles, t, to_next);
    FfnDots<V>(args, FfnRows::kH, down, tile, sums);
    for (int32_t p = 0; p < down.count; ++p) {
      const int32_t row = (first_panel + p) * kPanelRows;
      const int n = std::min(shape.dim - row, kPanelRows);
      for (int r = 0; r < tile.rows; ++r) {
        float* y =
            args.y + int64_t{args.slot[tile.first + r]} * shape.dim + row;
        const float* sum = sums + (p * tile.rows + r) * kPanelRows;
        StoreLanes<V>(y, n, Biased<V>(bias, row, n, V::Load(sum)));
      }
    }
  }
}

// Two passes over all groups, so two barriers whatever their number (up to five
// with integer activations).
template <typename V>
absl::Status GroupedFfn(const GroupedFfnArgs& args, Stream& stream) {
  int64_t entries = 0;
  for (int32_t g = 0; g < args.group_count; ++g) {
    entries += args.groups[g].end - args.groups[g].begin;
  }
  if (entries == 0) return absl::OkStatus();
  const ExpertShape& shape = args.shape;
  // Of a part, on average over the groups.
  const int64_t column_work = kPanelRows * entries / args.group_count;
  const int32_t groups = args.group_count;
  const bool one_tile =
      entries <= int64_t{groups} * TileRows<V>(TakesCodes(args, shape.dtype));
  RoundEntries<V>(args, FfnRows::kX, entries, stream);
  const PanelParts gate(shape.inner, kGatePanels, groups, one_tile,
                        Threads(stream));
  ForFfnParts(
      stream, int64_t{groups} * gate.count,
      column_work * shape.dim * 2 * gate.width,
      [&](int64_t i, int64_t next) { GateUpPart<V>(args, gate, i, next); });
  RoundEntries<V>(args, FfnRows::kH, entries, stream);
  const PanelParts down(shape.dim, kDownPanels, groups, one_tile,
                        Threads(stream));
  ForFfnParts(
      stream, int64_t{groups} * down.count,
      column_work * shape.inner * down.width,
      [&](int64_t i, int64_t next) { DownPart<V>(args, down, i, next); });
  return absl::OkStatus();
}

}  // namespace
}  // namespace bullpen::kernels
