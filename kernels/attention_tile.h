#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention.h"

// How attention is cut into tiles: queries that read the same keys and values.

namespace bullpen::kernels {
namespace {

// Some rows of one sequence and some query heads of one KV head. Query i is
// row i / heads, head i % heads.
struct AttentionTile {
  const KvSequence* sequence = nullptr;
  int64_t kv_head = 0;
  int64_t head = 0;  // first query head
  int32_t heads = 0;
  int64_t row = 0;  // first row, counted in the sequence
  int32_t rows = 0;
  int64_t first_key = 0;  // of the first row
  int64_t end_key = 0;    // of the last row
  float* scratch = nullptr;

  int32_t count() const { return rows * heads; }
  int64_t position(int32_t query) const {
    return sequence->first_position + row + query / heads;
  }
  int64_t first_part() const { return first_key / kAttentionPart; }
  int64_t end_part() const { return (end_key - 1) / kAttentionPart + 1; }

  // Of the part at hand, by query: a score for each key, then its exponential.
  float* scores(int32_t query) const {
    return scratch + query * kAttentionPart;
  }
  // Values with the dimensions in the lanes, where the cache does not have
  // them so: kValueSlice of them for each key of the part.
  float* slice() const { return scratch + kTileQueries * kAttentionPart; }
  // Of kTileQueries parts: see PartResult.
  float* results() const { return slice() + kAttentionPart * kValueSlice; }
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
  int32_t heads = 0;       // of one tile
  int32_t head_parts = 0;  // of one KV head's query heads
  int64_t tiles = 0;
};

inline AttentionCut CutSequence(const AttentionArgs& args,
                                const KvSequence& sequence) {
  const int32_t group = args.heads / args.layer.kv_heads;
  AttentionCut cut;
  cut.head_parts = (group + kTileQueries - 1) / kTileQueries;
  cut.heads = (group + cut.head_parts - 1) / cut.head_parts;
  cut.rows = std::min(kTileQueries / cut.heads, std::max(sequence.rows, 1));
  cut.tiles = (int64_t{sequence.rows} + cut.rows - 1) / cut.rows *
              args.layer.kv_heads * cut.head_parts;
  return cut;
}

inline AttentionTile TileOf(const AttentionArgs& args,
                            const KvSequence& sequence, const AttentionCut& cut,
                            int64_t index) {
  const int64_t columns = int64_t{args.layer.kv_heads} * cut.head_parts;
  const int32_t group = args.heads / args.layer.kv_heads;
  const int32_t first =
      static_cast<int32_t>(index % cut.head_parts) * cut.heads;
  AttentionTile tile{.sequence = &sequence};
  tile.kv_head = index % columns / cut.head_parts;
  tile.head = tile.kv_head * group + first;
  tile.heads = std::min(cut.heads, group - first);
  tile.row = index / columns * cut.rows;
  tile.rows = static_cast<int32_t>(
      std::min<int64_t>(cut.rows, sequence.rows - tile.row));
  tile.first_key = FirstKey(args, sequence.first_position + tile.row);
  tile.end_key = sequence.first_position + tile.row + tile.rows;
  return tile;
}

// The tile of that number, in the order of the sequences, for one worker.
inline AttentionTile FindTile(const AttentionArgs& args, int64_t number,
                              int worker) {
  const KvSequence* sequence = args.sequences;
  AttentionCut cut = CutSequence(args, *sequence);
  while (number >= cut.tiles) {
    number -= cut.tiles;
    cut = CutSequence(args, *++sequence);
  }
  AttentionTile tile = TileOf(args, *sequence, cut, number);
  tile.scratch = args.scratch + worker * args.scratch_stride;
  return tile;
}

}  // namespace
}  // namespace bullpen::kernels
