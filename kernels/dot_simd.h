#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/dot_tile_simd.h"
#include "kernels/int8_dot.h"
#include "kernels/math_simd.h"
#include "kernels/quant_dot_simd.h"
#include "kernels/quant_panels.h"
#include "kernels/token_tiles.h"
#include "kernels/types.h"

// Dot products of rows of x with panels of weights.

namespace bullpen::kernels {
namespace {

inline constexpr int kDotPanels = 64;    // at most, in one call
inline constexpr int kDotFloats = 6144;  // of x packed at a time: in the L1

// Some adjacent panels of a weight matrix: of a plain type, whole bands.
struct PanelSpan {
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  int32_t cols = 0;
  int32_t count = 0;  // <= kDotPanels

  int64_t panel_bytes() const { return ColumnBytes(dtype, cols); }
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

// GroupSum of each group of columns [first, first + columns), all tokens of a
// group side by side.
inline void SumGroups(const float* const* rows, int tokens, int32_t first,
                      int32_t columns, int32_t group, float* out) {
  for (int32_t c = first; c < first + columns; c += group) {
    for (int t = 0; t < tokens; ++t) *out++ = GroupSum(rows[t] + c, group);
  }
}

// sums[p][t][lane] = row `16 p + lane` of the span . rows[t], for
// 1 <= tokens <= V::kDotTokens. `cold`: of a plain type, that it is one of the
// first tiles to read the span.
template <typename V>
void Dots(const PanelSpan& span, const float* const* rows, int tokens,
          bool cold, float* sums) {
  alignas(64) float packed[kDotFloats];
  const PanelFormat& format = FormatOf(span.dtype);
  const bool plain = format.plain();
  const DotFunction dot = plain ? ChoosePlainDot<V>(span.dtype, tokens)
                                : ChooseQuantDot<V>(format, tokens);
  // A row alone need not be packed; only sums of its groups take room.
  float x_sums[kDotFloats / kPanelRows];
  const int32_t step = tokens == 1 && !format.minimum
                           ? std::max(span.cols, 1)
                           : kDotFloats / tokens / 256 * 256;
  int32_t first = 0;
  do {  // Once even without columns: the sums are zero then.
    const int32_t columns = std::min(step, span.cols - first);
    const float* x = rows[0] + first;
    if (tokens > 1) {
      PackRows<V>(rows, tokens, first, columns, packed);
      x = packed;
    }
    if (format.minimum) {
      SumGroups(rows, tokens, first, columns, format.group_cols, x_sums);
    }
    dot({.weights = span.data,
         .panel_bytes = span.panel_bytes(),
         .panels = span.count,
         .first = first,
         .columns = columns,
         .x = x,
         .sums = sums,
         .resume = first > 0,
         .cold = cold,
         .format = &format,
         .x_sums = x_sums});
    first += columns;
  } while (first < span.cols);
}

// sums[p][t][lane] for a tile of integer rows at `x` (Int8Block), 1 <= tokens
// <= V::kInt8Tokens.
template <typename V>
void Int8Dots(const PanelSpan& span, const std::byte* x, int tokens,
              float* sums, const ReadAhead& ahead) {
  V::ChooseInt8(span.dtype, tokens)({.weights = span.data,
                                     .panels = span.count,
                                     .cols = span.cols,
                                     .x = x,
                                     .sums = sums,
                                     .ahead = ahead});
}

// Panels in a part of `panels` that one tile of tokens reads once: long
// streams, as each start of one waits for memory (gate and up take turns), but
// two parts at least for each thread.
inline int32_t LongPart(int64_t panels, int threads) {
  return static_cast<int32_t>(
      std::clamp<int64_t>(panels / (2 * threads) / 4 * 4, 4, kDotPanels));
}

// The most rows in a tile of the type; `int8`: rounded to integers.
template <typename V>
constexpr int TileRows(bool int8) {
  return int8 ? V::kInt8Tokens : V::kDotTokens;
}

}  // namespace
}  // namespace bullpen::kernels
