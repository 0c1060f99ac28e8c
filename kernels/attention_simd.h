#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/attention_scores_simd.h"
#include "kernels/attention_tile.h"
#include "kernels/attention_values_simd.h"
#include "kernels/parallel.h"

namespace bullpen::kernels {
namespace {

// Runs fn with the largest number of queries that fits, until none is left.
template <typename Fn>
void ForQueries(int32_t begin, int32_t end, Fn&& fn) {
  int32_t query = begin;
  for (; query + 4 <= end; query += 4) {
    fn(query, std::integral_constant<int, 4>());
  }
  for (; query + 2 <= end; query += 2) {
    fn(query, std::integral_constant<int, 2>());
  }
  for (; query < end; ++query) fn(query, std::integral_constant<int, 1>());
}

// Adds the values of keys [begin, end) for the queries [first, first + count).
template <typename V, DType kType>
void AddValuesOf(const AttentionArgs& args, const AttentionTile& tile,
                 int32_t first, int32_t count, int64_t begin, int64_t end) {
  if (begin >= end) return;
  ForQueries(first, first + count, [&](int32_t query, auto queries) {
    AddAllValues<V, kType, queries()>(args, tile, query, begin, end);
  });
}

template <typename V, DType kType>
void AttendTile(const AttentionArgs& args, const AttentionTile& tile) {
  const int32_t count = tile.count();
  const int64_t end_key = tile.position(count - 1) + 1;
  ForQueries(0, count, [&](int32_t query, auto queries) {
    ScoreQueries<V, kType, queries()>(args, tile, query, end_key);
  });
  float z[kAttentionRows * kTileHeads];
  const int64_t v_dim = args.layer.v_dim;
  for (int32_t query = 0; query < count; ++query) {
    z[query] = Normalise<V>(args, tile, query);
    std::memset(OutputOf(args, tile, query), 0, v_dim * sizeof(float));
  }
  // Keys that all rows see are read once; the ends, where a row sees keys that
  // another does not, row by row. Each row's keys are taken in order.
  const int64_t common_begin = FirstKey(args, end_key - 1);
  const int64_t common_end = tile.position(0) + 1;
  for (int32_t row = 0; row < count; row += tile.heads) {
    AddValuesOf<V, kType>(args, tile, row, tile.heads,
                          FirstKey(args, tile.position(row)),
                          std::min(common_begin, tile.position(row) + 1));
  }
  AddValuesOf<V, kType>(args, tile, 0, count, common_begin, common_end);
  for (int32_t row = 0; row < count; row += tile.heads) {
    AddValuesOf<V, kType>(args, tile, row, tile.heads,
                          std::max(common_begin, common_end),
                          tile.position(row) + 1);
  }
  for (int32_t query = 0; query < count; ++query) {
    float* out = OutputOf(args, tile, query);
    for (int64_t d = 0; d < v_dim; d += 16) {
      const int n = static_cast<int>(std::min<int64_t>(v_dim - d, 16));
      StoreLanes<V>(out + d, n,
                    V::Div(LoadLanes<V>(out + d, n), V::Set(z[query])));
    }
  }
}

// Tiles [begin, end) in the order of the sequences.
template <typename V, DType kType>
void AttendTiles(const AttentionArgs& args, int64_t begin, int64_t end,
                 float* scores) {
  for (int32_t s = 0; s < args.sequence_count && end > 0; ++s) {
    const KvSequence& sequence = args.sequences[s];
    const AttentionCut cut = CutSequence(args, sequence);
    for (int64_t i = std::max<int64_t>(begin, 0); i < std::min(end, cut.tiles);
         ++i) {
      AttentionTile tile = TileOf(args, sequence, cut, i);
      tile.scores = scores;
      AttendTile<V, kType>(args, tile);
    }
    begin -= cut.tiles;
    end -= cut.tiles;
  }
}

template <typename V>
absl::Status Attention(const AttentionArgs& args, Stream& stream) {
  int64_t tiles = 0;
  int64_t work = 0;
  for (int32_t s = 0; s < args.sequence_count; ++s) {
    const KvSequence& sequence = args.sequences[s];
    tiles += CutSequence(args, sequence).tiles;
    work += RoundedContext(sequence) * sequence.rows;
  }
  if (tiles == 0) return absl::OkStatus();
  work *= int64_t{args.heads} * (args.layer.k_dim + args.layer.v_dim);
  ForParts(stream, tiles, work / tiles,
           [&](int64_t begin, int64_t end, int worker) {
             float* scores = args.scratch + worker * args.scratch_stride;
             if (args.layer.dtype == DType::kF32) {
               AttendTiles<V, DType::kF32>(args, begin, end, scores);
             } else {
               AttendTiles<V, DType::kF16>(args, begin, end, scores);
             }
           });
  return absl::OkStatus();
}

}  // namespace
}  // namespace bullpen::kernels
