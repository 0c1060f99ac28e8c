#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/dot_tile_simd.h"
#include "kernels/math_simd.h"
#include "kernels/types.h"

// Dot products of rows of x with panels of weights.

namespace bullpen::kernels {
namespace {

inline constexpr int kDotPanels = 16;    // at most, in one call
inline constexpr int kDotColumns = 512;  // of x packed at a time

// Some adjacent panels of a weight matrix.
struct PanelSpan {
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  int32_t cols = 0;
  int32_t count = 0;  // <= kDotPanels

  int64_t panel_bytes() const {
    return int64_t{cols} * kPanelRows * DTypeBytes(dtype);
  }
};

// Copies columns [first, first + columns) of the rows into DotBlock's order.
// One moving pointer then serves all tokens, however far apart they stand.
template <typename V>
void PackRows(const float* const* rows, int tokens, int32_t first,
              int32_t columns, float* out) {
  for (int32_t c = 0; c < columns; c += kPanelRows) {
    const int n = std::min<int32_t>(columns - c, kPanelRows);
    for (int t = 0; t < tokens; ++t, out += kPanelRows) {
      V::Store(out, LoadLanes<V>(rows[t] + first + c, n));
    }
  }
}

// sums[p][t][lane] = row `16 p + lane` of the span . rows[t], for
// 1 <= tokens <= V::kDotTokens.
template <typename V>
void Dots(const PanelSpan& span, const float* const* rows, int tokens,
          float* sums) {
  alignas(64) float packed[kDotColumns * V::kDotTokens];
  const DotFunction dot = ChooseDot<V>(span.dtype, tokens);
  const int32_t step = tokens == 1 ? std::max(span.cols, 1) : kDotColumns;
  int32_t first = 0;
  do {  // Once even without columns: the sums are zero then.
    const int32_t columns = std::min(step, span.cols - first);
    const float* x = rows[0];
    if (tokens > 1) {
      PackRows<V>(rows, tokens, first, columns, packed);
      x = packed;
    }
    dot({.weights =
             span.data + int64_t{first} * kPanelRows * DTypeBytes(span.dtype),
         .panel_bytes = span.panel_bytes(),
         .panels = span.count,
         .columns = columns,
         .x = x,
         .sums = sums,
         .resume = first > 0});
    first += columns;
  } while (first < span.cols);
}

// Tokens [begin, end) in tiles of nearly equal size, none above kDotTokens:
// calls fn(first, count) for each.
template <typename V, typename Fn>
void ForTokenTiles(int64_t begin, int64_t end, Fn&& fn) {
  const int64_t tiles = (end - begin + V::kDotTokens - 1) / V::kDotTokens;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t first = begin + (end - begin) * i / tiles;
    const int64_t next = begin + (end - begin) * (i + 1) / tiles;
    fn(first, static_cast<int>(next - first));
  }
}

}  // namespace
}  // namespace bullpen::kernels
