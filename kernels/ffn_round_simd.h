#pragma once

#include <algorithm>

#include "kernels/ffn_parts_simd.h"
#include "kernels/int8_rows_simd.h"

// What an expert's weights multiply, rounded to integers.

namespace bullpen::kernels {
namespace {

// Calls fn(tile's first entry, its rows) for all tiles of all groups.
template <typename V, typename Fn>
void ForTiles(const GroupedFfnArgs& args, DType dtype, int64_t row_work,
              Stream& stream, Fn&& fn) {
  int64_t most = 0;
  for (int32_t g = 0; g < args.group_count; ++g) {
    most = std::max(most, TilesOf<V>(args, args.groups[g], dtype).count());
  }
  ForParts(stream, args.group_count * most, row_work * V::kInt8Tokens,
           [&](int64_t begin, int64_t end, int) {
             for (int64_t i = begin; i < end; ++i) {
               const TokenTiles tiles =
                   TilesOf<V>(args, args.groups[i / most], dtype);
               const int64_t tile = i % most;
               if (tile < tiles.count()) {
                 fn(tiles.first(tile), tiles.rows(tile));
               }
             }
           });
}

// Rounds x or h of all entries to integers, entry by entry.
template <typename V>
void Int8Entries(const GroupedFfnArgs& args, FfnRows which, DType dtype,
                 int32_t cols, Stream& stream) {
  ForTiles<V>(args, dtype, cols, stream, [&](int64_t first, int count) {
    Int8Rows<V::kInt8Tokens>(FormatOf(dtype),
                             TileOfFfn<V>(args, which, first, count).rows,
                             count, cols, CodesAt(args, first));
  });
}

// Rounds each row of x once, then copies it to its entries.
template <typename V>
void Int8SharedX(const GroupedFfnArgs& args, Stream& stream) {
  const int32_t dim = args.shape.dim;
  const PanelFormat& format = FormatOf(args.shape.dtype);
  const int64_t row_bytes = Int8RowBytes(dim);
  ForParts(stream, args.x_rows, dim, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      Int8RowOf(format, args.x + r * args.x_stride, dim,
                args.x_codes + r * row_bytes);
    }
  });
  const int64_t words = RowWords(format, dim);
  ForTiles<V>(args, args.shape.dtype, dim / 4, stream,
              [&](int64_t first, int count) {
                const std::byte* rows[V::kInt8Tokens];
                for (int t = 0; t < count; ++t) {
                  rows[t] = args.x_codes + args.x_row[first + t] * row_bytes;
                }
                Interleave(rows, count, words, CodesAt(args, first));
              });
}

// Rounds x or h of all `entries` to integers, if their weights take them.
template <typename V>
void RoundEntries(const GroupedFfnArgs& args, FfnRows which, int64_t entries,
                  Stream& stream) {
  const ExpertShape& shape = args.shape;
  const bool x = which == FfnRows::kX;
  const DType dtype = x ? shape.dtype : shape.down_dtype();
  if (!TakesCodes(args, dtype)) return;
  if (x && args.x_codes != nullptr && entries >= 2 * int64_t{args.x_rows}) {
    return Int8SharedX<V>(args, stream);
  }
  Int8Entries<V>(args, which, dtype, x ? shape.dim : shape.inner, stream);
}

}  // namespace
}  // namespace bullpen::kernels
