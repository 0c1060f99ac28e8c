#pragma once

#include "kernels/dot_simd.h"
#include "kernels/grouped_ffn.h"
#include "kernels/int8_rows_simd.h"
#include "kernels/parallel.h"

// The rows that experts multiply, as floats or as integers.

namespace bullpen::kernels {
namespace {

// The tiles of a group's entries for products with weights of the type.
template <typename V>
TokenTiles TilesOf(const GroupedFfnArgs& args, const ExpertRows& group,
                   DType dtype) {
  const bool int8 = args.codes != nullptr && !IsPlain(dtype);
  return {group.begin, group.end, TileRows<V>(int8)};
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
  if (args.codes != nullptr && !IsPlain(span.dtype)) {
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
  if (args.codes == nullptr || IsPlain(dtype)) return;
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
