#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/attention_keys.h"
#include "kernels/attention_scores_simd.h"
#include "kernels/kv_simd.h"
#include "kernels/math_simd.h"

// The second half of attention: values weighted by a part's exponentials.

namespace bullpen::kernels {
namespace {

// Values of a part with the dimensions in the lanes.
struct ValueRows {
  const std::byte* const* blocks;
  const std::byte* const* later;  // to prefetch, byte for byte
  int64_t stride = 0;             // elements from one key to the next
  int64_t dim = 0;                // elements of a key
};

// Where the products of some queries go, and with what values are multiplied:
// by query.
struct WeightedSums {
  const float* weights;  // [kAttentionPart]
  float* sums;           // at the dimension at hand
  int64_t sums_stride;
};

// sums += weights * V over `keys` (counted in the part), for kQueries queries
// and kVectors * 16 elements from `first` on (of which `lanes` count, if
// kVectors is 1).
template <typename V, KvType kType, int kQueries, int kVectors>
void AddColumns(const ValueRows& rows, const WeightedSums& out, KeyRange keys,
                int64_t first, int lanes) {
  using F = typename V::F;
  F acc[kQueries][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kQueries; ++i) {
#pragma GCC unroll 8
    for (int n = 0; n < kVectors; ++n) {
      acc[i][n] = LoadLanes<V>(out.sums + i * out.sums_stride + n * 16, lanes);
    }
  }
  for (int64_t key = keys.begin; key < keys.end;) {
    const int64_t block = key / kKvBlockTokens;
    const int64_t end = std::min(keys.end, (block + 1) * kKvBlockTokens);
    const std::byte* const values = rows.blocks[block];
    const std::byte* const later = rows.later[block];
    for (; key < end; ++key) {
      const int64_t at = key % kKvBlockTokens * rows.stride + first;
      PrefetchLater<kVectors * 16 * KvElementBytes(kType)>(
          later + at * KvElementBytes(kType));
      F v[kVectors];
#pragma GCC unroll 8
      for (int n = 0; n < kVectors; ++n) {
        v[n] = LoadKvLanes<V, kType>(values, at + n * 16, lanes);
      }
#pragma GCC unroll 8
      for (int i = 0; i < kQueries; ++i) {
        const F x = V::Set(out.weights[i * kAttentionPart + key]);
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
      StoreLanes<V>(out.sums + i * out.sums_stride + n * 16, lanes, acc[i][n]);
    }
  }
}

// All elements of the values for some queries.
template <typename V, KvType kType, int kQueries>
void AddValues(const ValueRows& rows, WeightedSums out, KeyRange keys) {
  constexpr int kVectors = BesideQueries<V>(kQueries);
  constexpr int kFewer = std::min(kVectors, 4);
  if (keys.empty()) return;
  const int64_t dim = rows.dim;
  int64_t d = 0;
  for (; d + kVectors * 16 <= dim; d += kVectors * 16) {
    AddColumns<V, kType, kQueries, kVectors>(rows, out, keys, d, 16);
    out.sums += kVectors * 16;
  }
  for (; d + kFewer * 16 <= dim; d += kFewer * 16) {
    AddColumns<V, kType, kQueries, kFewer>(rows, out, keys, d, 16);
    out.sums += kFewer * 16;
  }
  for (; d < dim; d += 16) {
    const int lanes = static_cast<int>(std::min<int64_t>(dim - d, 16));
    AddColumns<V, kType, kQueries, 1>(rows, out, keys, d, lanes);
    out.sums += 16;
  }
}

}  // namespace
}  // namespace bullpen::kernels
