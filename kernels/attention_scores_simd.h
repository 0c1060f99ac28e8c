#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/attention_keys.h"
#include "kernels/attention_tile.h"
#include "kernels/kv_simd.h"
#include "kernels/math_simd.h"

// The first half of attention: scores of a part, and their exponentials.

namespace bullpen::kernels {
namespace {

// How many vectors' sums fit the registers beside each of some queries.
template <typename V>
constexpr int BesideQueries(int queries) {
  int count = 8;
  while (count > 1 && count * queries > V::kAttentionSums) count /= 2;
  return count;
}

// Scores of kQueries queries from `query` on against kBlocks blocks from
// `block` on. Lanes past a query's position hold no score: later steps leave
// them out.
template <typename V, KvType kType, int kQueries, int kBlocks>
void ScoreBlocks(const AttentionArgs& args, const AttentionTile& tile,
                 const AttentionPart& part, int32_t query, int block) {
  using F = typename V::F;
  const float* q[kQueries];
  const std::byte* keys[kBlocks];
  const std::byte* later[kBlocks];
  F acc[kQueries][kBlocks];
#pragma GCC unroll 8
  for (int i = 0; i < kQueries; ++i) {
    q[i] = QueryOf(args, tile, query + i);
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) acc[i][b] = V::Zero();
  }
#pragma GCC unroll 8
  for (int b = 0; b < kBlocks; ++b) {
    keys[b] = part.keys[block + b];
    later[b] = part.after_keys[block + b];
  }
  constexpr int64_t kStep = kKvBlockTokens * KvElementBytes(kType);
  for (int64_t d = 0; d < args.layer.k_dim; ++d) {
    if (d * kStep % 64 == 0) {
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) {
        PrefetchLater<kStep>(later[b] + d * kStep);
      }
    }
    F k[kBlocks];
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) {
      k[b] = LoadKv<V, kType>(keys[b], d * kKvBlockTokens);
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
      F score = acc[i][b];
      if constexpr (kType == KvType::kInt8) {
        score = V::Mul(LoadKvScales<V>(keys[b]), score);
      }
      V::Store(tile.scores(query + i) + (block + b) * kKvBlockTokens,
               V::Mul(scale, score));
    }
  }
}

template <typename V, KvType kType, int kQueries>
void ScoreQueries(const AttentionArgs& args, const AttentionTile& tile,
                  const AttentionPart& part, int32_t query) {
  constexpr int kBlocks = BesideQueries<V>(kQueries);
  const KeyRange keys{KeysOf(args, tile, part.begin, query).begin,
                      KeysOf(args, tile, part.begin, query + kQueries - 1).end};
  if (keys.empty()) return;
  int block = static_cast<int>(keys.begin / kKvBlockTokens);
  const int end_block = static_cast<int>((keys.end - 1) / kKvBlockTokens) + 1;
  for (; block + kBlocks <= end_block; block += kBlocks) {
    ScoreBlocks<V, kType, kQueries, kBlocks>(args, tile, part, query, block);
  }
  for (; block < end_block; ++block) {
    ScoreBlocks<V, kType, kQueries, 1>(args, tile, part, query, block);
  }
}

// m' and z' of a part, see attention.h.
struct PartSums {
  float m = 0;
  float z = 0;
};

// Turns the scores of `keys` into what their values are to be multiplied by.
template <typename V, KvType kType>
PartSums Normalise(const AttentionTile& tile, const AttentionPart& part,
                   int32_t query, KeyRange keys) {
  using F = typename V::F;
  constexpr float kLeast = std::numeric_limits<float>::lowest();
  float* const scores = tile.scores(query);
  const int first = static_cast<int>(keys.begin);
  const int end = static_cast<int>(keys.end);
  const int first_block = first / kKvBlockTokens;
  F largest = V::Set(kLeast);
  for (int key = first_block * kKvBlockTokens; key < end;
       key += kKvBlockTokens) {
    const F s = V::Load(scores + key);
    largest =
        V::Max(V::Keep(s, first - key, end - key, V::Set(kLeast)), largest);
  }
  const float m = LargestLane<V>(largest);
  F sum = V::Zero();
  for (int key = first_block * kKvBlockTokens; key < end;
       key += kKvBlockTokens) {
    F e = ExpLanes<V>(V::Sub(V::Load(scores + key), V::Set(m)));
    e = V::Keep(e, first - key, end - key, V::Zero());
    sum = V::Add(sum, e);
    if constexpr (kType == KvType::kInt8) {
      e = V::Mul(e, LoadKvScales<V>(part.values[key / kKvBlockTokens]));
    }
    V::Store(scores + key, e);
  }
  return {.m = m, .z = SumSixteen<V>(sum)};
}

}  // namespace
}  // namespace bullpen::kernels
