#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention_fold_simd.h"
#include "kernels/attention_keys.h"
#include "kernels/attention_part_simd.h"
#include "kernels/attention_tile.h"
#include "kernels/parallel.h"

// Attention whose threads share the parts of few tiles.

namespace bullpen::kernels {
namespace {

// What a call has to do.
struct AttentionWork {
  int64_t tiles = 0;
  int64_t queries = 0;  // of one tile, at most
  int64_t first_part = 0;
  int64_t end_part = 0;
  int64_t multiply_adds = 0;
  // Parts of all tiles that the room for their results allows at a time.
  int64_t parts_at_once = 0;

  int64_t parts() const { return end_part - first_part; }
  FoldState* states(const AttentionArgs& args) const {
    return reinterpret_cast<FoldState*>(args.partials);
  }
  // Of one tile and one of the parts at hand.
  float* results(const AttentionArgs& args, int64_t tile, int64_t part) const {
    return args.partials + 2 * tiles * queries +
           (part * tiles + tile) * queries * PartStride(args.layer.v_dim);
  }
};

inline AttentionWork MeasureWork(const AttentionArgs& args) {
  AttentionWork work;
  for (int32_t s = 0; s < args.sequence_count; ++s) {
    const KvSequence& sequence = args.sequences[s];
    if (sequence.rows == 0) continue;
    const AttentionCut cut = CutSequence(args, sequence);
    const int64_t last = sequence.first_position + sequence.rows - 1;
    const int64_t first = FirstKey(args, sequence.first_position);
    const int64_t first_part = first / kAttentionPart;
    work.first_part =
        work.tiles == 0 ? first_part : std::min(work.first_part, first_part);
    work.end_part = std::max(work.end_part, last / kAttentionPart + 1);
    work.tiles += cut.tiles;
    work.queries = std::max<int64_t>(work.queries, cut.rows * cut.heads);
    work.multiply_adds += (last + 1 - first) * sequence.rows * args.heads *
                          (args.layer.k_dim + args.layer.v_dim);
  }
  const int64_t part = work.tiles * work.queries;
  if (part == 0) return work;
  const int64_t room = args.partials_room - 2 * part;
  work.parts_at_once =
      std::min(work.parts(), room / (part * PartStride(args.layer.v_dim)));
  return work;
}

// The parts [begin, end) of work.parts_at_once of all tiles, tile by tile.
template <typename V, KvType kType>
void AttendParts(const AttentionArgs& args, const AttentionWork& work,
                 int64_t first_part, KeyRange items, int worker) {
  const int64_t at_once = work.parts_at_once;
  for (int64_t i = items.begin; i < items.end; ++i) {
    const int64_t number = i / at_once;
    const AttentionTile tile = FindTile(args, number, worker);
    const int64_t p = first_part + i % at_once;
    if (p < tile.first_part() || p >= tile.end_part()) continue;
    // What this call reads next is worth a prefetch.
    const int64_t end = p + std::min(items.end - i, at_once - i % at_once);
    AttendPart<V, kType>(
        args, tile, MakePart(args, tile, p, std::min(end, tile.end_part())),
        work.results(args, number, i % at_once));
  }
}

// Folds the parts at hand of the queries [begin, end), all tiles' together.
template <typename V>
void FoldParts(const AttentionArgs& args, const AttentionWork& work,
               int64_t first_part, KeyRange queries) {
  const int64_t v_dim = args.layer.v_dim;
  for (int64_t i = queries.begin; i < queries.end; ++i) {
    const int64_t number = i / work.queries;
    const int32_t query = static_cast<int32_t>(i % work.queries);
    const AttentionTile tile = FindTile(args, number, 0);
    if (query >= tile.count()) continue;
    float* const out = OutputOf(args, tile, query);
    FoldState& state = work.states(args)[i];
    if (first_part == work.first_part) state = BeginFold(args, tile, query);
    const int64_t end =
        std::min(first_part + work.parts_at_once, work.end_part);
    for (int64_t p = first_part; p < end; ++p) {
      if (KeysOf(args, tile, p * kAttentionPart, query).empty()) continue;
      float* const results = work.results(args, number, p - first_part);
      Fold<V>(PartResult(results, query, v_dim), v_dim, state, out);
    }
    if (end == work.end_part) EndFold<V>(state, v_dim, out);
  }
}

// Threads take parts of tiles, because there are few tiles. The results are
// folded in order, so it does not show who computed what.
template <typename V, KvType kType>
void ShareParts(const AttentionArgs& args, const AttentionWork& work,
                Stream& stream) {
  const int64_t items = work.tiles * work.parts_at_once;
  // A thread reads on in one tile for a while, and yet can help a late one.
  const int64_t chunk =
      std::max<int64_t>(1, items / (4 * stream.pool->threads()));
  const int64_t fold = work.parts_at_once * args.layer.v_dim;
  for (int64_t p = work.first_part; p < work.end_part;
       p += work.parts_at_once) {
    stream.pool->ParallelFor(
        items, chunk, [&](int64_t begin, int64_t end, int worker) {
          AttendParts<V, kType>(args, work, p, {begin, end}, worker);
        });
    ForParts(stream, work.tiles * work.queries, fold,
             [&](int64_t begin, int64_t end, int) {
               FoldParts<V>(args, work, p, {begin, end});
             });
  }
}

}  // namespace
}  // namespace bullpen::kernels
