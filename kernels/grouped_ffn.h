#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "kernels/int8_rows.h"
#include "kernels/types.h"

namespace bullpen::kernels {

// How the products of gate and up make the inner values, h = f(g, u):
//   kSwiGlu:        (g / (1 + Exp(-g))) * u
//   kClampedSwiGlu: g = min(g, limit), u = max(min(u, limit), -limit), then
//                   (g / (1 + Exp(-(alpha * g)))) * (u + 1)   (gpt-oss)
struct Activation {
  enum class Kind : uint8_t { kSwiGlu, kClampedSwiGlu };
  Kind kind = Kind::kSwiGlu;
  float alpha = 1.0f;
  float limit = 0.0f;  // positive
};

// One expert's weights as one blob: gate | up | down, each a panel matrix,
// gate and up [inner, dim], down [dim, inner]; behind them, if it has any, the
// biases of gate, up [inner] and down [dim] in F32. Each part is 64-byte
// aligned.
struct ExpertShape {
  DType dtype = DType::kBF16;
  int32_t dim = 0;
  int32_t inner = 0;
  bool bias = false;
  std::optional<DType> other_down = {};  // of down, if it is not `dtype`

  DType down_dtype() const { return other_down.value_or(dtype); }
  int64_t gate_bytes() const { return Align(PanelBytes(dtype, inner, dim)); }
  int64_t down_offset() const { return 2 * gate_bytes(); }
  int64_t gate_bias_offset() const {
    return down_offset() + Align(PanelBytes(down_dtype(), dim, inner));
  }
  int64_t up_bias_offset() const {
    return gate_bias_offset() + Align(int64_t{4} * inner);
  }
  int64_t down_bias_offset() const {
    return up_bias_offset() + Align(int64_t{4} * inner);
  }
  int64_t bytes() const {
    return bias ? down_bias_offset() + Align(int64_t{4} * dim)
                : gate_bias_offset();
  }
  int64_t code_row_bytes() const { return Int8RowBytes(std::max(dim, inner)); }
  static constexpr int64_t Align(int64_t n) { return (n + 63) / 64 * 64; }
};

// The rows that one expert computes: entries [begin, end) of `rows`.
struct ExpertRows {
  const void* blob = nullptr;
  int32_t begin = 0;
  int32_t end = 0;
};

// For each group and each of its entries i:
//   h[j] = f(gate_j . x + gate_bias[j], up_j . x + up_bias[j])
//   y[slot[i]] = down h + down_bias
// with the dot products as in matmul.h and x = row x_row[i] of x. Groups may
// come in any order and in several calls: no row depends on another.
struct GroupedFfnArgs {
  const float* x = nullptr;  // [tokens, dim]
  int64_t x_stride = 0;
  ExpertShape shape = {};
  Activation activation = {};
  const ExpertRows* groups = nullptr;
  int32_t group_count = 0;
  const int32_t* x_row = nullptr;  // [entries] row of x
  const int32_t* slot = nullptr;   // [entries] row of y
  float* y = nullptr;              // [slots, dim]
  // [entries, 2 * inner], by entry; h is the first half of each afterwards.
  float* scratch = nullptr;
  // Scratch, aligned as floats are, [entries] of Int8RowBytes of the larger of
  // dim and inner: room for the x and the h of block types as integers, see
  // matmul.h. Null: they stay float.
  std::byte* codes = nullptr;
  // Scratch, aligned as floats are, [x_rows] of Int8RowBytes(dim), x_rows being
  // those of x: room to round a row once for all its experts. Null: it is
  // rounded for each.
  std::byte* x_codes = nullptr;
  int32_t x_rows = 0;
};

}  // namespace bullpen::kernels
