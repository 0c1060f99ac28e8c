#pragma once

#include "kernels/dot_simd.h"
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

// Panels [panel, panel + panels) for tokens [begin, end).
template <typename V>
void MatMulPart(const MatMulArgs& args, int32_t panel, int32_t panels,
                int64_t begin, int64_t end) {
  alignas(64) float sums[kDotPanels * V::kDotTokens * kPanelRows];
  PanelSpan span{.dtype = args.w.dtype, .cols = args.w.cols, .count = panels};
  span.data =
      static_cast<const std::byte*>(args.w.data) + panel * span.panel_bytes();
  ForTokenTiles<V>(begin, end, [&](int64_t first, int count) {
    const float* rows[V::kDotTokens];
    for (int t = 0; t < count; ++t) {
      rows[t] = args.x + (first + t) * args.x_stride;
    }
    Dots<V>(span, rows, count, sums);
    StoreTile<V>(args, panel, panels, first, count, sums);
  });
}

// Panels that one part takes: few enough to split the work between threads,
// and to stay in the second-level cache while the tokens pass.
inline int32_t PanelsPerPart(const PanelMatrix& w, int64_t tokens) {
  const int64_t panel_work = int64_t{w.cols} * kPanelRows * tokens;
  int64_t panels = kPartWork / std::max<int64_t>(1, panel_work);
  // Multiples of what the inner loop takes at a time.
  panels = panels >= 16 ? 16 : panels >= 8 ? 8 : 4;
  return static_cast<int32_t>(panels);
}

template <typename V>
absl::Status MatMul(const MatMulArgs& args, Stream& stream) {
  constexpr int64_t kPartTokens = 4 * V::kDotTokens;
  const int32_t panels = args.w.panels();
  const int32_t width = PanelsPerPart(args.w, args.tokens);
  const int64_t token_parts = (args.tokens + kPartTokens - 1) / kPartTokens;
  const int64_t parts = (panels + width - 1) / width * token_parts;
  const int64_t work = int64_t{args.w.cols} * kPanelRows * width *
                       std::min<int64_t>(args.tokens, kPartTokens);
  // Tokens vary fastest, so that the weights of a part are still in cache.
  ForParts(
      stream, parts * args.heads, work, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t part = i % parts;
          const int32_t panel =
              static_cast<int32_t>(part / token_parts) * width;
          const int64_t token = part % token_parts * kPartTokens;
          MatMulPart<V>(HeadOf(args, i / parts), panel,
                        std::min(width, panels - panel), token,
                        std::min<int64_t>(args.tokens, token + kPartTokens));
        }
      });
  return absl::OkStatus();
}

}  // namespace
}  // namespace bullpen::kernels
