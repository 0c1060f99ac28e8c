#pragma once

#include "kernels/dot_simd.h"
#include "kernels/grouped_ffn.h"
#include "kernels/parallel.h"

// What an expert's weights are split into, and the rows that they multiply, as
// floats or as integers.

namespace bullpen::kernels {
namespace {

// Panels of gate (and as many of up), or of down, that one part takes while
// tile after tile of tokens passes.
inline constexpr int32_t kGatePanels = 4;
inline constexpr int32_t kDownPanels = 8;

// The parts that a matrix of each group is split into.
struct PanelParts {
  // `width` panels, or more where one tile of tokens reads them.
  PanelParts(int32_t rows, int32_t width_of_many, int32_t groups, bool one_tile,
             int threads) {
    const int32_t panels = (rows + kPanelRows - 1) / kPanelRows;
    width = one_tile ? std::max(width_of_many,
                                LongPart(int64_t{panels} * groups, threads))
                     : width_of_many;
    count = (panels + width - 1) / width;
    width = ((panels + count - 1) / count + 3) / 4 * 4;  // equal parts
  }
  int32_t width;
  int32_t count;
};

// A matrix that every group has, at `offset` of its blob.
struct FfnMatrix {
  DType dtype = DType::kF32;
  int32_t rows = 0;
  int32_t cols = 0;
  int64_t offset = 0;
};

// Part i of the groups' matrices, counted through from the first group on.
inline PanelSpan PartOf(const GroupedFfnArgs& args, const FfnMatrix& matrix,
                        const PanelParts& parts, int64_t i) {
  PanelSpan span{.dtype = matrix.dtype, .cols = matrix.cols};
  const int32_t panels = (matrix.rows + kPanelRows - 1) / kPanelRows;
  const int32_t first = static_cast<int32_t>(i % parts.count) * parts.width;
  span.count = std::min(parts.width, panels - first);
  span.data = static_cast<const std::byte*>(args.groups[i / parts.count].blob) +
              matrix.offset + first * span.panel_bytes();
  return span;
}

// Calls fn(i, next) for all parts of all groups; `next` is the part that the
// same thread most likely takes then (WorkRanges).
template <typename Fn>
void ForFfnParts(Stream& stream, int64_t count, int64_t work, Fn&& fn) {
  ForParts(stream, count, work, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) fn(i, std::min(i + 1, count - 1));
  });
}

// Whether weights of the type multiply integers.
inline bool TakesCodes(const GroupedFfnArgs& args, DType dtype) {
  return args.codes != nullptr && !IsPlain(dtype);
}

// The tiles of a group's entries for products with weights of the type.
template <typename V>
TokenTiles TilesOf(const GroupedFfnArgs& args, const ExpertRows& group,
                   DType dtype) {
  return {group.begin, group.end, TileRows<V>(TakesCodes(args, dtype))};
}

// Rows of one of the two products: those of x, or those of h.
enum class FfnRows { kX, kH };

template <typename V>
struct TileOfFfn {
  TileOfFfn(const GroupedFfnArgs& args, FfnRows which, int64_t first,
            int count) {
    for (int t = 0; t < count; ++t) {
      rows[t] = which == FfnRows::kX
                    ? args.x + args.x_row[first + t] * args.x_stride
                    : args.scratch + (first + t) * 2 * args.shape.inner;
    }
  }
  const float* rows[V::kDotTokens];
};

inline std::byte* CodesAt(const GroupedFfnArgs& args, int64_t entry) {
  return args.codes + entry * args.shape.code_row_bytes();
}

// Entries [first, first + rows) of a group.
struct FfnTile {
  FfnTile(const TokenTiles& tiles, int64_t tile, int64_t next_part)
      : first(tiles.first(tile)),
        rows(tiles.rows(tile)),
        cold(tile < kColdTiles),
        ahead(AheadOf(tiles, tile, next_part)) {}
  int64_t first;
  int rows;
  bool cold;
  ReadAhead ahead;
};

// The products of a tile of entries with some panels.
template <typename V>
void FfnDots(const GroupedFfnArgs& args, FfnRows which, const PanelSpan& span,
             const FfnTile& tile, float* sums) {
  const int64_t first = tile.first;
  const int count = tile.rows;
  if (TakesCodes(args, span.dtype)) {
    Int8Dots<V>(span, CodesAt(args, first), count, sums, tile.ahead);
  } else {
    Dots<V>(span, TileOfFfn<V>(args, which, first, count).rows, count,
            tile.cold, sums);
  }
}

}  // namespace
}  // namespace bullpen::kernels
