#pragma once

#include "kernels/activation_simd.h"
#include "kernels/ffn_parts_simd.h"
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

// h = f(gate x, up x) for some panels of inner rows, all of the group's
// entries.
template <typename V>
void GateUpPart(const GroupedFfnArgs& args, const ExpertRows& group,
                int64_t part, int32_t width) {
  const ExpertShape& shape = args.shape;
  const PanelSpan gate =
      PartOf(group.blob, 0, shape.dtype, shape.inner, shape.dim, part, width);
  PanelSpan up = gate;
  up.data += shape.gate_bytes();
  const float* gate_bias = BiasAt(shape, group, shape.gate_bias_offset());
  const float* up_bias = BiasAt(shape, group, shape.up_bias_offset());
  alignas(64) float gates[kDotPanels * V::kDotTokens * kPanelRows];
  alignas(64) float ups[kDotPanels * V::kDotTokens * kPanelRows];
  const TokenTiles tiles = TilesOf<V>(args, group, shape.dtype);
  for (int64_t tile = 0; tile < tiles.count(); ++tile) {
    const int64_t first = tiles.first(tile);
    const int count = tiles.rows(tile);
    FfnDots<V>(args, FfnRows::kX, gate, first, count, gates);
    FfnDots<V>(args, FfnRows::kX, up, first, count, ups);
    for (int32_t p = 0; p < gate.count; ++p) {
      const int32_t row = (static_cast<int32_t>(part) * width + p) * kPanelRows;
      const int n = std::min(shape.inner - row, kPanelRows);
      for (int t = 0; t < count; ++t) {
        const int at = (p * count + t) * kPanelRows;
        StoreLanes<V>(
            args.scratch + (first + t) * 2 * shape.inner + row, n,
            Activate<V>(args.activation,
                        Biased<V>(gate_bias, row, n, V::Load(gates + at)),
                        Biased<V>(up_bias, row, n, V::Load(ups + at))));
      }
    }
  }
}

// y = down h for some panels of dim rows, all of the group's entries.
template <typename V>
void DownPart(const GroupedFfnArgs& args, const ExpertRows& group, int64_t part,
              int32_t width) {
  const ExpertShape& shape = args.shape;
  const PanelSpan down =
      PartOf(group.blob, shape.down_offset(), shape.down_dtype(), shape.dim,
             shape.inner, part, width);
  const float* bias = BiasAt(shape, group, shape.down_bias_offset());
  alignas(64) float sums[kDotPanels * V::kDotTokens * kPanelRows];
  const TokenTiles tiles = TilesOf<V>(args, group, shape.down_dtype());
  for (int64_t tile = 0; tile < tiles.count(); ++tile) {
    const int64_t first = tiles.first(tile);
    const int count = tiles.rows(tile);
    FfnDots<V>(args, FfnRows::kH, down, first, count, sums);
    for (int32_t p = 0; p < down.count; ++p) {
      const int32_t row = (static_cast<int32_t>(part) * width + p) * kPanelRows;
      const int n = std::min(shape.dim - row, kPanelRows);
      for (int t = 0; t < count; ++t) {
        float* y = args.y + int64_t{args.slot[first + t]} * shape.dim + row;
        StoreLanes<V>(y, n,
                      Biased<V>(bias, row, n,
                                V::Load(sums + (p * count + t) * kPanelRows)));
      }
    }
  }
}

// Two passes over all groups, so two barriers whatever their number (four with
// integer activations).
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
  Int8Entries<V>(args, FfnRows::kX, stream);
  const PanelParts gate(shape.inner, kGatePanels, groups, one_tile);
  ForParts(stream, int64_t{groups} * gate.count,
           column_work * shape.dim * 2 * gate.width,
           [&](int64_t begin, int64_t end, int) {
             for (int64_t i = begin; i < end; ++i) {
               GateUpPart<V>(args, args.groups[i / gate.count], i % gate.count,
                             gate.width);
             }
           });
  Int8Entries<V>(args, FfnRows::kH, stream);
  const PanelParts down(shape.dim, kDownPanels, groups, one_tile);
  ForParts(stream, int64_t{groups} * down.count,
           column_work * shape.inner * down.width,
           [&](int64_t begin, int64_t end, int) {
             for (int64_t i = begin; i < end; ++i) {
               DownPart<V>(args, args.groups[i / down.count], i % down.count,
                           down.width);
             }
           });
  return absl::OkStatus();
}

}  // namespace
}  // namespace bullpen::kernels
