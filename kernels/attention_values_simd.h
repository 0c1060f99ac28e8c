#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/attention_tile.h"
#include "kernels/math_simd.h"

// The second half of attention: values weighted by a tile's exponentials.

namespace bullpen::kernels {
namespace {

// out += e V over keys [begin, end), for kQueries queries and kVectors * 16
// outputs from `d` on (of which `lanes` count, if kVectors is 1).
template <typename V, DType kType, int kQueries, int kVectors>
void AddValues(const AttentionArgs& args, const AttentionTile& tile,
               int32_t query, int64_t d, int lanes, int64_t begin,
               int64_t end) {
  using F = typename V::F;
  const int64_t v_dim = args.layer.v_dim;
  float* out[kQueries];
  F acc[kQueries][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kQueries; ++i) {
    out[i] = OutputOf(args, tile, query + i) + d;
#pragma GCC unroll 8
    for (int n = 0; n < kVectors; ++n) {
      acc[i][n] = LoadLanes<V>(out[i] + n * 16, lanes);
    }
  }
  for (int64_t key = begin; key < end;) {
    const int64_t block_end =
        std::min(end, key / kKvBlockTokens * kKvBlockTokens + kKvBlockTokens);
    const std::byte* values = KvBlock(args.layer, *tile.sequence, key) +
                              KvValueOffset(args.layer, tile.kv_head);
    const std::byte* next =
        KvBlock(args.layer, *tile.sequence, std::min(block_end, end - 1)) +
        KvValueOffset(args.layer, tile.kv_head);
    const float* e = tile.score(query, key);
    for (; key < block_end; ++key, ++e) {
      const int64_t at = key % kKvBlockTokens * v_dim + d;
      F v[kVectors];
#pragma GCC unroll 8
      for (int n = 0; n < kVectors; ++n) {
        __builtin_prefetch(next + (at + n * 16) * DTypeBytes(kType));
        v[n] = LoadLanesAs<V, kType>(values, at + n * 16, lanes);
      }
#pragma GCC unroll 8
      for (int i = 0; i < kQueries; ++i) {
        const F x = V::Set(e[i * tile.score_stride]);
#pragma GCC unroll 8
        for (int n = 0; n < kVectors; ++n) {
          acc[i][n] = V::Accumulate(x, v[n], acc[i][n]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kQueries; ++i) {
#pragma GCC unroll 8
    for (int n = 0; n < kVectors; ++n) {
      StoreLanes<V>(out[i] + n * 16, lanes, acc[i][n]);
    }
  }
}

template <typename V, DType kType, int kQueries>
void AddAllValues(const AttentionArgs& args, const AttentionTile& tile,
                  int32_t query, int64_t begin, int64_t end) {
  constexpr int kVectors = std::min(4, V::kAttentionSums / kQueries);
  const int64_t v_dim = args.layer.v_dim;
  int64_t d = 0;
  for (; d + kVectors * 16 <= v_dim; d += kVectors * 16) {
    AddValues<V, kType, kQueries, kVectors>(args, tile, query, d, 16, begin,
                                            end);
  }
  for (; d < v_dim; d += 16) {
    const int lanes = static_cast<int>(std::min<int64_t>(v_dim - d, 16));
    AddValues<V, kType, kQueries, 1>(args, tile, query, d, lanes, begin, end);
  }
}

}  // namespace
}  // namespace bullpen::kernels
