#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention_fold_simd.h"
#include "kernels/attention_keys.h"
#include "kernels/attention_part_simd.h"
#include "kernels/attention_share_simd.h"
#include "kernels/attention_tile.h"
#include "kernels/parallel.h"

namespace bullpen::kernels {
namespace {

// All parts of a tile, one after the other.
template <typename V, KvType kType>
void AttendTile(const AttentionArgs& args, const AttentionTile& tile) {
  FoldState states[kTileQueries];
  for (int32_t query = 0; query < tile.count(); ++query) {
    states[query] = BeginFold(args, tile, query);
  }
  const int64_t v_dim = args.layer.v_dim;
  for (int64_t p = tile.first_part(); p < tile.end_part(); ++p) {
    const AttentionPart part = MakePart(args, tile, p, tile.end_part());
    AttendPart<V, kType>(args, tile, part, tile.results());
    for (int32_t query = 0; query < tile.count(); ++query) {
      if (KeysOf(args, tile, part.begin, query).empty()) continue;
      Fold<V>(PartResult(tile.results(), query, v_dim), v_dim, states[query],
              OutputOf(args, tile, query));
    }
  }
  for (int32_t query = 0; query < tile.count(); ++query) {
    EndFold<V>(states[query], v_dim, OutputOf(args, tile, query));
  }
}

template <typename V, KvType kType>
void AttendAll(const AttentionArgs& args, Stream& stream) {
  // Fewer tiles for each thread than this could leave one waiting long.
  constexpr int64_t kTilesPerThread = 4;
  const AttentionWork work = MeasureWork(args);
  if (work.tiles == 0) return;
  const int threads = stream.pool == nullptr ? 1 : stream.pool->threads();
  if (threads > 1 && work.tiles < kTilesPerThread * threads &&
      work.parts_at_once > 1 && work.multiply_adds > 2 * kPartWork) {
    ShareParts<V, kType>(args, work, stream);
    return;
  }
  ForParts(stream, work.tiles, work.multiply_adds / work.tiles,
           [&](int64_t begin, int64_t end, int worker) {
             for (int64_t i = begin; i < end; ++i) {
               AttendTile<V, kType>(args, FindTile(args, i, worker));
             }
           });
}

template <typename V>
absl::Status Attention(const AttentionArgs& args, Stream& stream) {
  switch (args.layer.type) {
    case KvType::kF32:
      AttendAll<V, KvType::kF32>(args, stream);
      break;
    case KvType::kF16:
      AttendAll<V, KvType::kF16>(args, stream);
      break;
    case KvType::kInt8:
      AttendAll<V, KvType::kInt8>(args, stream);
      break;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace bullpen::kernels
