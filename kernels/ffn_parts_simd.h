#pragma once

#include "kernels/dot_simd.h"
#include "kernels/grouped_ffn.h"
#include "kernels/int8_rows_simd.h"
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
  PanelParts(int32_t rows, int32_t width_of_many, int32_t groups,
             bool one_tile) {
    const int32_t panels = (rows + kPanelRows - 1) / kPanelRows;
    width = one_tile
                ? std::max(width_of_many, LongPart(int64_t{panels} * groups))
                : width_of_many;
    count = (panels + width - 1) / width;
  }
  int32_t width;
  int32_t count;
};

// `width` panels from panel `part * width` on of a [rows, cols] matrix.
inline PanelSpan PartOf(const void* blob, int64_t offset, DType dtype,
                        int32_t rows, int32_t cols, int64_t part,
                        int32_t width) {
  PanelSpan span{.dtype = dtype, .cols = cols};
  const int32_t panels = (rows + kPanelRows - 1) / kPanelRows;
  const int32_t first = static_cast<int32_t>(part) * width;
  span.count = std::min(width, panels - first);
  span.data =
      static_cast<const std::byte*>(blob) + offset + first * span.panel_bytes();
  return span;
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

// The products of a tile of entries with some panels.
template <typename V>
void FfnDots(const GroupedFfnArgs& args, FfnRows which, const PanelSpan& span,
             int64_t first, int count, float* sums) {
  if (TakesCodes(args, span.dtype)) {
    Int8Dots<V>(span, CodesAt(args, first), count, sums);
  } else {
    Dots<V>(span, TileOfFfn<V>(args, which, first, count).rows, count, sums);
  }
}

// Rounds x or h of all entries to integers, if weights of `dtype` take them.
template <typename V>
void Int8Entries(const GroupedFfnArgs& args, FfnRows which, Stream& stream) {
  const ExpertShape& shape = args.shape;
  const bool x = which == FfnRows::kX;
  const DType dtype = x ? shape.dtype : shape.down_dtype();
  if (!TakesCodes(args, dtype)) return;
  const int32_t cols = x ? shape.dim : shape.inner;
  int64_t most = 0;
  for (int32_t g = 0; g < args.group_count; ++g) {
    most = std::max(most, TilesOf<V>(args, args.groups[g], dtype).count());
  }
  ForParts(stream, args.group_count * most, int64_t{cols} * V::kInt8Tokens,
           [&](int64_t begin, int64_t end, int) {
             for (int64_t i = begin; i < end; ++i) {
               const TokenTiles tiles =
                   TilesOf<V>(args, args.groups[i / most], dtype);
               const int64_t tile = i % most;
               if (tile >= tiles.count()) continue;
               const int64_t first = tiles.first(tile);
               const int count = tiles.rows(tile);
               Int8Rows(FormatOf(dtype),
                        TileOfFfn<V>(args, which, first, count).rows, count,
                        cols, CodesAt(args, first));
             }
           });
}

}  // namespace
}  // namespace bullpen::kernels
