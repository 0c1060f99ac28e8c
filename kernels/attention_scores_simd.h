#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/attention_tile.h"
#include "kernels/math_simd.h"

// The first half of attention: scores of a tile, and their exponentials.

namespace bullpen::kernels {
namespace {

// Scores of kQueries queries from `query` on against kBlocks blocks from the
// one of `key` on. Lanes past a query's position hold no score: later steps
// leave them out.
template <typename V, DType kType, int kQueries, int kBlocks>
void ScoreBlocks(const AttentionArgs& args, const AttentionTile& tile,
                 int32_t query, int64_t key, int64_t end_key) {
  using F = typename V::F;
  const float* q[kQueries];
  const std::byte* keys[kBlocks];
  const std::byte* next[kBlocks];  // prefetched: paged blocks are far apart
  F acc[kQueries][kBlocks];
#pragma GCC unroll 8
  for (int i = 0; i < kQueries; ++i) {
    q[i] = QueryOf(args, tile, query + i);
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) acc[i][b] = V::Zero();
  }
#pragma GCC unroll 8
  for (int b = 0; b < kBlocks; ++b) {
    keys[b] = KvBlock(args.layer, *tile.sequence, key + b * kKvBlockTokens) +
              KvKeyOffset(args.layer, tile.kv_head);
    const int64_t next_key = key + (kBlocks + b) * kKvBlockTokens;
    next[b] = next_key < end_key
                  ? KvBlock(args.layer, *tile.sequence, next_key) +
                        KvKeyOffset(args.layer, tile.kv_head)
                  : keys[b];
  }
  for (int64_t d = 0; d < args.layer.k_dim; ++d) {
    F k[kBlocks];
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) {
      __builtin_prefetch(next[b] + d * kKvBlockTokens * DTypeBytes(kType));
      k[b] = V::template LoadAs<kType>(keys[b], d * kKvBlockTokens);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kQueries; ++i) {
      const F x = V::Set(q[i][d]);
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) {
        acc[i][b] = V::Accumulate(x, k[b], acc[i][b]);
      }
    }
  }
  const F scale = V::Set(args.scale);
#pragma GCC unroll 8
  for (int i = 0; i < kQueries; ++i) {
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) {
      V::Store(tile.score(query + i, key + b * kKvBlockTokens),
               V::Mul(scale, acc[i][b]));
    }
  }
}

template <typename V, DType kType, int kQueries>
void ScoreQueries(const AttentionArgs& args, const AttentionTile& tile,
                  int32_t query, int64_t end_key) {
  constexpr int kBlocks = std::min(8, V::kAttentionSums / kQueries);
  int64_t key = tile.first_key;
  for (; key + kBlocks * kKvBlockTokens <= end_key;
       key += kBlocks * kKvBlockTokens) {
    ScoreBlocks<V, kType, kQueries, kBlocks>(args, tile, query, key, end_key);
  }
  for (; key < end_key; key += kKvBlockTokens) {
    ScoreBlocks<V, kType, kQueries, 1>(args, tile, query, key, end_key);
  }
}

// Turns scores into exponentials and returns their sum z.
template <typename V>
float Normalise(const AttentionArgs& args, const AttentionTile& tile,
                int32_t query) {
  using F = typename V::F;
  const int64_t last = tile.position(query);
  const int64_t first = FirstKey(args, last);
  const F lowest = V::Set(-std::numeric_limits<float>::infinity());
  const int64_t begin = first / kKvBlockTokens * kKvBlockTokens;
  F largest = lowest;
  for (int64_t key = begin; key <= last; key += kKvBlockTokens) {
    const F s = V::Load(tile.score(query, key));
    const int skip = static_cast<int>(std::max<int64_t>(first - key, 0));
    const int end =
        static_cast<int>(std::min<int64_t>(last + 1 - key, kKvBlockTokens));
    largest = V::Max(V::Keep(s, skip, end, lowest), largest);
  }
  float m = LargestLane<V>(largest);
  const int64_t head = tile.head + query % tile.heads;
  if (args.sinks != nullptr) m = std::max(args.sinks[head], m);
  F sum = V::Zero();
  for (int64_t key = begin; key <= last; key += kKvBlockTokens) {
    float* score = tile.score(query, key);
    const int skip = static_cast<int>(std::max<int64_t>(first - key, 0));
    const int end =
        static_cast<int>(std::min<int64_t>(last + 1 - key, kKvBlockTokens));
    const F e = V::Keep(ExpLanes<V>(V::Sub(V::Load(score), V::Set(m))), skip,
                        end, V::Zero());
    V::Store(score, e);
    sum = V::Add(sum, e);
  }
  float z = SumSixteen<V>(sum);
  if (args.sinks != nullptr) {
    z += _mm256_cvtss_f32(V::Low(ExpLanes<V>(V::Set(args.sinks[head] - m))));
  }
  return z;
}

}  // namespace
}  // namespace bullpen::kernels
