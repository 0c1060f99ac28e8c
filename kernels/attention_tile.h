#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention.h"

// How attention is cut into tiles, the units of work.

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

}  // namespace
}  // namespace bullpen::kernels
