#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/attention.h"
#include "kernels/math_simd.h"
#include "kernels/parallel.h"

namespace bullpen::kernels {
namespace {

// Query heads of one KV head that one tile takes, at most.
inline constexpr int32_t kTileHeads = 16;

// Some rows of one sequence and some query heads of one KV head: queries that
// read the same keys and values. Query i is row i / heads, head i % heads.
struct AttentionTile {
  const KvSequence* sequence = nullptr;
  int64_t kv_head = 0;
  int64_t head = 0;  // first query head
  int32_t heads = 0;
  int64_t row = 0;  // first row, counted in the sequence
  int32_t rows = 0;
  int64_t first_key = 0;     // of the first row, rounded down to a block
  int64_t score_stride = 0;  // between the scores of two queries
  float* scores = nullptr;   // from first_key on

  int32_t count() const { return rows * heads; }
  int64_t position(int32_t query) const {
    return sequence->first_position + row + query / heads;
  }
  float* score(int32_t query, int64_t key) const {
    return scores + query * score_stride + (key - first_key);
  }
};

inline const float* QueryOf(const AttentionArgs& args,
                            const AttentionTile& tile, int32_t query) {
  const int64_t row = tile.sequence->first_row + tile.row + query / tile.heads;
  const int64_t head = tile.head + query % tile.heads;
  return args.q + row * args.q_stride + head * args.layer.k_dim;
}

inline float* OutputOf(const AttentionArgs& args, const AttentionTile& tile,
                       int32_t query) {
  const int64_t row = tile.sequence->first_row + tile.row + query / tile.heads;
  const int64_t head = tile.head + query % tile.heads;
  return args.out + row * args.out_stride + head * args.layer.v_dim;
}

// Scores of kQueries queries from `query` on against kBlocks blocks from the
// one of `key` on. Lanes past a query's position hold no score: later steps
// leave them out.
template <typename V, DType kType, int kQueries, int kBlocks>
void ScoreBlocks(const AttentionArgs& args, const AttentionTile& tile,
                 int32_t query, int64_t key) {
  using F = typename V::F;
  const float* q[kQueries];
  const std::byte* keys[kBlocks];
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
  }
  for (int64_t d = 0; d < args.layer.k_dim; ++d) {
    F k[kBlocks];
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) {
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
    ScoreBlocks<V, kType, kQueries, kBlocks>(args, tile, query, key);
  }
  for (; key < end_key; key += kKvBlockTokens) {
    ScoreBlocks<V, kType, kQueries, 1>(args, tile, query, key);
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
    const float* e = tile.score(query, key);
    for (; key < block_end; ++key, ++e) {
      const int64_t at = key % kKvBlockTokens * v_dim + d;
      F v[kVectors];
#pragma GCC unroll 8
      for (int n = 0; n < kVectors; ++n) {
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

// How a sequence's rows and heads are cut into tiles.
struct AttentionCut {
  int32_t rows = 0;        // of one tile
  int32_t head_parts = 0;  // of one KV head's query heads
  int64_t tiles = 0;
};

inline int64_t RoundedContext(const KvSequence& sequence) {
  const int64_t context = int64_t{sequence.first_position} + sequence.rows;
  return (context + kKvBlockTokens - 1) / kKvBlockTokens * kKvBlockTokens;
}

inline AttentionCut CutSequence(const AttentionArgs& args,
                                const KvSequence& sequence) {
  const int32_t group = args.heads / args.layer.kv_heads;
  AttentionCut cut;
  cut.head_parts = (group + kTileHeads - 1) / kTileHeads;
  const int64_t heads = std::min(group, kTileHeads);
  // As many rows as the scratch has room for scores of.
  const int64_t fitting =
      args.scratch_stride /
      std::max<int64_t>(1, RoundedContext(sequence) * heads);
  cut.rows =
      static_cast<int32_t>(std::clamp<int64_t>(fitting, 1, kAttentionRows));
  cut.tiles = (int64_t{sequence.rows} + cut.rows - 1) / cut.rows *
              args.layer.kv_heads * cut.head_parts;
  return cut;
}

inline AttentionTile TileOf(const AttentionArgs& args,
                            const KvSequence& sequence, const AttentionCut& cut,
                            int64_t index) {
  const int64_t columns = int64_t{args.layer.kv_heads} * cut.head_parts;
  const int32_t group = args.heads / args.layer.kv_heads;
  const int32_t part = static_cast<int32_t>(index % cut.head_parts);
  AttentionTile tile{.sequence = &sequence};
  tile.kv_head = index % columns / cut.head_parts;
  tile.head = tile.kv_head * group + part * kTileHeads;
  tile.heads = std::min(kTileHeads, group - part * kTileHeads);
  tile.row = index / columns * cut.rows;
  tile.rows = static_cast<int32_t>(
      std::min<int64_t>(cut.rows, sequence.rows - tile.row));
  tile.first_key = FirstKey(args, sequence.first_position + tile.row) /
                   kKvBlockTokens * kKvBlockTokens;
  tile.score_stride = RoundedContext(sequence);
  return tile;
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
