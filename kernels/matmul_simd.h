#pragma once

#include "kernels/dot_simd.h"
#include "kernels/int8_rows_simd.h"
#include "kernels/parallel.h"

namespace bullpen::kernels {
namespace {

// Adds bias and the old y to the sums of a tile, scaled, and stores it.
template <typename V>
void StoreTile(const MatMulArgs& args, int32_t panel, int32_t panels,
               int64_t token, int tokens, const float* sums) {
  for (int32_t p = 0; p < panels; ++p) {
    const int32_t row = (panel + p) * kPanelRows;
    const int n = std::min(args.w.rows - row, kPanelRows);
    for (int t = 0; t < tokens; ++t, sums += kPanelRows) {
      float* y = args.y + (token + t) * args.y_stride + row;
      typename V::F sum = V::Load(sums);
      if (args.bias != nullptr) {
        sum = V::Add(sum, LoadLanes<V>(args.bias + row, n));
      }
      sum = V::Mul(sum, V::Set(args.scale));
      if (args.add) sum = V::Add(LoadLanes<V>(y, n), sum);
      StoreLanes<V>(y, n, sum);
    }
  }
}

// Where rows from `token` on stand as integers.
inline std::byte* CodesAt(const MatMulArgs& args, int64_t token) {
  return args.x_codes + token * Int8RowBytes(args.w.cols);
}

// The rows of a tile.
template <typename V>
struct TileOfX {
  TileOfX(const MatMulArgs& args, int64_t first, int count) {
    for (int t = 0; t < count; ++t) {
      rows[t] = args.x + (first + t) * args.x_stride;
    }
  }
  const float* rows[V::kDotTokens];
};

// Panels [panel, panel + panels) for the tiles [begin, end).
template <typename V>
void MatMulPart(const MatMulArgs& args, int32_t panel, int32_t panels,
                const TokenTiles& tiles, int64_t begin, int64_t end) {
  alignas(64) float sums[kDotPanels * V::kDotTokens * kPanelRows];
  PanelSpan span{.dtype = args.w.dtype, .cols = args.w.cols, .count = panels};
  span.data =
      static_cast<const std::byte*>(args.w.data) + panel * span.panel_bytes();
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t first = tiles.first(tile);
    const int count = tiles.rows(tile);
    if (args.x_codes != nullptr) {
      Int8Dots<V>(span, CodesAt(args, first), count, sums,
                  {.bytes = CodesPrefetch(count)});
    } else {
      Dots<V>(span, TileOfX<V>(args, first, count).rows, count,
              tile < kColdTiles, sums);
    }
    StoreTile<V>(args, panel, panels, first, count, sums);
  }
}

// Rounds x of every head, tile by tile.
template <typename V>
void Int8X(const MatMulArgs& args, const TokenTiles& tiles, Stream& stream) {
  ForParts(stream, args.heads * tiles.count(),
           int64_t{args.w.cols} * V::kInt8Tokens,
           [&](int64_t begin, int64_t end, int) {
             for (int64_t i = begin; i < end; ++i) {
               const MatMulArgs head = HeadOf(args, i / tiles.count());
               const int64_t tile = i % tiles.count();
               const int64_t first = tiles.first(tile);
               const int count = tiles.rows(tile);
               Int8Rows<V::kInt8Tokens>(
                   FormatOf(args.w.dtype), TileOfX<V>(head, first, count).rows,
                   count, args.w.cols, CodesAt(head, first));
             }
           });
}

// Panels that one part takes: few enough to split the work between threads,
// and to stay in the second-level cache while the tokens pass; multiples of
// what the inner loop takes at a time.
inline int32_t PanelsPerPart(const PanelMatrix& w, int64_t tokens,
                             int64_t tiles, int threads) {
  const int64_t panel_work = int64_t{w.cols} * kPanelRows * tokens;
  const int64_t panels = kPartWork / std::max<int64_t>(1, panel_work);
  const int32_t width = panels >= 16 ? 16 : panels >= 8 ? 8 : 4;
  return tiles > 1 ? width : std::max(width, LongPart(w.panels(), threads));
}

template <typename V>
absl::Status MatMul(const MatMulArgs& given, Stream& stream) {
  constexpr int64_t kPartTiles = 4;
  MatMulArgs args = given;
  if (IsPlain(args.w.dtype)) args.x_codes = nullptr;
  const bool int8 = args.x_codes != nullptr;
  const TokenTiles tiles(0, args.tokens, TileRows<V>(int8));
  if (int8) Int8X<V>(args, tiles, stream);
  const int32_t panels = args.w.panels();
  const int32_t width =
      PanelsPerPart(args.w, args.tokens, tiles.count(), Threads(stream));
  const int64_t tile_parts = (tiles.count() + kPartTiles - 1) / kPartTiles;
  const int64_t parts = (panels + width - 1) / width * tile_parts;
  const int64_t work =
      int64_t{args.w.cols} * kPanelRows * width *
      std::min<int64_t>(args.tokens, kPartTiles * TileRows<V>(int8));
  // Tokens vary fastest, so that the weights of a part are still in cache.
  ForParts(
      stream, parts * args.heads, work, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t part = i % parts;
          const int32_t panel = static_cast<int32_t>(part / tile_parts) * width;
          const int64_t tile = part % tile_parts * kPartTiles;
          MatMulPart<V>(HeadOf(args, i / parts), panel,
                        std::min(width, panels - panel), tiles, tile,
                        std::min(tiles.count(), tile + kPartTiles));
        }
      });
  return absl::OkStatus();
}

}  // namespace
}  // namespace bullpen::kernels
