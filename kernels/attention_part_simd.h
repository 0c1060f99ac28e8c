#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/attention_keys.h"
#include "kernels/attention_scores_simd.h"
#include "kernels/attention_tile.h"
#include "kernels/attention_values_simd.h"

// One part of a tile, see attention.h.

namespace bullpen::kernels {
namespace {

// Runs fn with the largest number of queries that fits, until none is left.
template <typename V, typename Fn>
void ForQueries(int32_t count, Fn&& fn) {
  constexpr int kMost = std::min(8, V::kAttentionSums);
  int32_t query = 0;
  for (; query + kMost <= count; query += kMost) {
    fn(query, std::integral_constant<int, kMost>());
  }
  for (; query + 4 <= count; query += 4) {
    fn(query, std::integral_constant<int, 4>());
  }
  for (; query + 2 <= count; query += 2) {
    fn(query, std::integral_constant<int, 2>());
  }
  for (; query < count; ++query) fn(query, std::integral_constant<int, 1>());
}

// One query's m', z' and a' of a part, in PartStride floats.
class PartResult {
 public:
  PartResult(float* results, int32_t query, int64_t v_dim)
      : begin_(results + query * PartStride(v_dim)),
        sums_(begin_ + PartStride(v_dim) - 16) {}

  float* values() const { return begin_; }
  float& m() const { return sums_[0]; }
  float& z() const { return sums_[1]; }

 private:
  float* begin_;
  float* sums_;
};

// Adds `rows` to all queries' results, whose elements they are from there on.
// Each query's keys are taken in order: those that kQueries queries see are
// read once, the ends, where one sees keys that another does not, by each.
template <typename V, KvType kType>
void AddToResults(const AttentionArgs& args, const AttentionTile& tile,
                  const AttentionPart& part, const ValueRows& rows,
                  float* results) {
  const int64_t v_dim = args.layer.v_dim;
  const auto keys_of = [&](int32_t query) {
    return KeysOf(args, tile, part.begin, query);
  };
  const auto sums_of = [&](int32_t query) {
    return WeightedSums{.weights = tile.scores(query),
                        .sums = results + query * PartStride(v_dim),
                        .sums_stride = PartStride(v_dim)};
  };
  ForQueries<V>(tile.count(), [&](int32_t query, auto queries) {
    const int32_t end = query + queries();
    const KeyRange common{keys_of(end - 1).begin, keys_of(query).end};
    for (int32_t i = query; i < end; ++i) {
      const KeyRange own = keys_of(i);
      AddValues<V, kType, 1>(rows, sums_of(i),
                             {own.begin, std::min(common.begin, own.end)});
    }
    AddValues<V, kType, queries()>(rows, sums_of(query), common);
    for (int32_t i = query; i < end; ++i) {
      AddValues<V, kType, 1>(
          rows, sums_of(i),
          {std::max(common.begin, common.end), keys_of(i).end});
    }
  });
}

// The same where the values are in the keys, slice by slice.
template <typename V, KvType kType>
void AddSlices(const AttentionArgs& args, const AttentionTile& tile,
               const AttentionPart& part, float* results) {
  const int64_t end_key =
      std::min<int64_t>(tile.end_key - part.begin, kAttentionPart);
  const std::byte* blocks[kPartBlocks];
  for (int b = 0; b < kPartBlocks; ++b) {
    blocks[b] = reinterpret_cast<const std::byte*>(
        tile.slice() + b * kKvBlockTokens * kValueSlice);
  }
  for (int64_t d = 0; d < args.layer.v_dim; d += kValueSlice) {
    const int64_t width = std::min<int64_t>(args.layer.v_dim - d, kValueSlice);
    for (int b = 0; b * kKvBlockTokens < end_key; ++b) {
      TransposeBlock<V, kType>(part.values[b], d, width, kValueSlice,
                               tile.slice() + b * kKvBlockTokens * kValueSlice);
    }
    AddToResults<V, KvType::kF32>(args, tile, part,
                                  {.blocks = blocks,
                                   .later = blocks,
                                   .stride = kValueSlice,
                                   .dim = width},
                                  results + d);
  }
}

// m', z' and a' of all queries that have keys in the part.
template <typename V, KvType kType>
void AttendPart(const AttentionArgs& args, const AttentionTile& tile,
                const AttentionPart& part, float* results) {
  ForQueries<V>(tile.count(), [&](int32_t query, auto queries) {
    ScoreQueries<V, kType, queries()>(args, tile, part, query);
  });
  const int64_t v_dim = args.layer.v_dim;
  for (int32_t query = 0; query < tile.count(); ++query) {
    const KeyRange keys = KeysOf(args, tile, part.begin, query);
    if (keys.empty()) continue;
    const PartSums sums = Normalise<V, kType>(tile, part, query, keys);
    const PartResult result(results, query, v_dim);
    std::memset(result.values(), 0, PartStride(v_dim) * sizeof(float));
    result.m() = sums.m;
    result.z() = sums.z;
  }
  if (args.layer.value_in_key) {
    AddSlices<V, kType>(args, tile, part, results);
  } else {
    AddToResults<V, kType>(args, tile, part,
                           {.blocks = part.values,
                            .later = part.after_values,
                            .stride = v_dim,
                            .dim = v_dim},
                           results);
  }
}

}  // namespace
}  // namespace bullpen::kernels
