#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/kv_layout.h"

namespace bullpen::kernels {

// Keys are taken in parts of this many by position. Parts are independent, so
// threads can share those of one sequence; K and V of a part stay in the L2.
inline constexpr int kAttentionPart = 256;

// Queries (rows times heads of one KV head) that are computed together.
inline constexpr int kTileQueries = 48;

// Causal attention of each row over its sequence's KV blocks, grouped queries
// (query head q reads KV head q / (heads / kv_heads)). A row at position p
// attends to the keys first..p (first = 0, or p - window + 1 with a window).
// Of those in each part, where ks and vs are the scales of an int8 cache:
//   s_j = scale * (ks_j * (chain of fma over d ascending from +0 of
//                          q[d] * K[j][d]))
//   m' = max(s_j, the least finite float)
//   e_j = Exp(s_j - m')                       (kernels/exp.h)
//   z' = sixteen partial sums of e_j: partial j % 16, j ascending; then halves
//        are added until one is left (p0+p8, p1+p9, ..., then +4, +2, +1)
//   a'[d] = chain of fma over j ascending from +0 of (e_j * vs_j) * V[j][d]
// The parts are folded in order of position into (m, z, a), which begin as
// (sink, 1, 0), or (least finite float, 0, 0) without a sink:
//   n = max(m, m'), f = Exp(m - n), g = Exp(m' - n)
//   m = n, z = fma(z', g, z * f), a[d] = fma(a'[d], g, a[d] * f)
// and out[d] = a[d] / z. Without int8 there are no products with ks and vs.
// j is the absolute position, so chunking of the prompt does not show.
struct AttentionArgs {
  const float* q = nullptr;  // [tokens, heads, k_dim], q_stride per token
  int64_t q_stride = 0;
  float* out = nullptr;  // [tokens, heads, v_dim], out_stride per token
  int64_t out_stride = 0;
  KvLayer layer = {};
  const KvSequence* sequences = nullptr;
  int32_t sequence_count = 0;
  int32_t heads = 0;
  float scale = 1.0f;
  int32_t window = 0;            // 0 = all earlier tokens
  const float* sinks = nullptr;  // [heads] or null
  // [threads][scratch_stride] floats, 64-byte aligned, a stride of
  // AttentionScratch() at least.
  float* scratch = nullptr;
  int64_t scratch_stride = 0;
  // For parts of one sequence that several threads compute; with less room
  // (AttentionPartials() is worth having) they share heads and rows only.
  float* partials = nullptr;
  int64_t partials_room = 0;  // floats
};

// Floats of one query's m', z' and a'.
constexpr int64_t PartStride(int64_t v_dim) {
  return (v_dim + 15) / 16 * 16 + 16;
}

// Elements of values that are brought from the keys' order at a time.
inline constexpr int kValueSlice = 64;

constexpr int64_t AttentionScratch(int64_t v_dim) {
  return kTileQueries * (kAttentionPart + PartStride(v_dim)) +
         kAttentionPart * kValueSlice;
}

// For sequences of up to `context` tokens, which decode one at a time.
constexpr int64_t AttentionPartials(int64_t context, int64_t heads,
                                    int64_t v_dim) {
  constexpr int64_t kMostParts = 64;  // more are done in rounds
  const int64_t parts = (context + kAttentionPart - 1) / kAttentionPart;
  return heads * (2 + std::min(parts, kMostParts) * PartStride(v_dim));
}

// The first key that the row at `position` attends to.
constexpr int64_t FirstKey(const AttentionArgs& args, int64_t position) {
  return args.window > 0 && position >= args.window ? position - args.window + 1
                                                    : 0;
}

}  // namespace bullpen::kernels
