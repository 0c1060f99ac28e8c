#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace bullpen::kernels {

enum class Activation : uint8_t { kSwiGlu };

// One expert's weights as one blob: gate | up | down, each a panel matrix,
// gate and up [inner, dim], down [dim, inner], each part 64-byte aligned.
struct ExpertShape {
  DType dtype = DType::kBF16;
  int32_t dim = 0;
  int32_t inner = 0;

  int64_t gate_bytes() const { return Align(PanelBytes(dtype, inner, dim)); }
  int64_t down_offset() const { return 2 * gate_bytes(); }
  int64_t bytes() const {
    return down_offset() + Align(PanelBytes(dtype, dim, inner));
  }
  static constexpr int64_t Align(int64_t n) { return (n + 63) / 64 * 64; }
};

// The rows that one expert computes: entries [begin, end) of `rows`.
struct ExpertRows {
  const void* blob = nullptr;
  int32_t begin = 0;
  int32_t end = 0;
};

// For each group and each of its entries i:
//   h[j] = Silu(gate_j . x) * (up_j . x),  Silu(g) = g / (1 + Exp(-g))
//   y[slot[i]] = down h
// with the dot products as in matmul.h and x = row x_row[i] of x. Groups may
// come in any order and in several calls: no row depends on another.
struct GroupedFfnArgs {
  const float* x = nullptr;  // [tokens, dim]
  int64_t x_stride = 0;
  ExpertShape shape = {};
  Activation activation = Activation::kSwiGlu;
  const ExpertRows* groups = nullptr;
  int32_t group_count = 0;
  const int32_t* x_row = nullptr;  // [entries] row of x
  const int32_t* slot = nullptr;   // [entries] row of y
  float* y = nullptr;              // [slots, dim]
  float* scratch = nullptr;        // [entries, 2 * inner], by entry
};

}  // namespace bullpen::kernels
