#pragma once

#include <cstdint>

#include "kernels/kv_layout.h"

namespace bullpen::kernels {

// Causal attention of each row over its sequence's KV blocks, grouped queries
// (query head q reads KV head q / (heads / kv_heads)). For a row at position p
// and the keys first..p (first = 0, or p - window + 1 with a window):
//   s_j = scale * (chain of fma over d ascending from +0 of q[d] * K[j][d])
//   m = max(s_j, sink)
//   e_j = Exp(s_j - m)                        (kernels/exp.h)
//   z = sixteen partial sums of e_j: partial j % 16, j ascending; then halves
//       are added until one is left (p0+p8, p1+p9, ..., then +4, +2, +1); then
//       + Exp(sink - m) if there is a sink
//   out[d] = (chain of fma over j ascending from +0 of e_j * V[j][d]) / z
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
  // Scratch for scores: [threads][scratch_stride] floats; scratch_stride >=
  // longest context rounded up to 16, times heads / kv_heads. Prompts go
  // faster with AttentionScratch(), which lets rows share what they read.
  float* scratch = nullptr;
  int64_t scratch_stride = 0;
};

// Rows of a prompt that are computed together where the scratch allows it.
inline constexpr int kAttentionRows = 4;

// The scratch_stride worth having for contexts of up to `context` tokens.
constexpr int64_t AttentionScratch(int64_t context, int64_t heads,
                                   int64_t kv_heads) {
  return (context + kKvBlockTokens - 1) / kKvBlockTokens * kKvBlockTokens *
         (heads / kv_heads) * kAttentionRows;
}

// The first key that the row at `position` attends to.
constexpr int64_t FirstKey(const AttentionArgs& args, int64_t position) {
  return args.window > 0 && position >= args.window ? position - args.window + 1
                                                    : 0;
}

}  // namespace bullpen::kernels
