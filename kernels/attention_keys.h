#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/attention_tile.h"

// Which keys a tile's queries see in one part, and where they stand.

namespace bullpen::kernels {
namespace {

inline constexpr int kPartBlocks = kAttentionPart / kKvBlockTokens;

// Keys begin <= j < end.
struct KeyRange {
  int64_t begin = 0;
  int64_t end = 0;
  bool empty() const { return begin >= end; }
};

// What a tile reads in one part. Blocks that no query reads have the address
// of one that some query does.
struct AttentionPart {
  int64_t begin = 0;  // position
  const std::byte* keys[kPartBlocks];
  const std::byte* values[kPartBlocks];  // of the keys, if those hold them
  // What is to be read after the keys and after the values: prefetched.
  const std::byte* after_keys[kPartBlocks];
  const std::byte* after_values[kPartBlocks];
};

// The keys of one query in the part that begins there, counted from there.
inline KeyRange KeysOf(const AttentionArgs& args, const AttentionTile& tile,
                       int64_t part_begin, int32_t query) {
  const int64_t last = tile.position(query);
  return {std::max(FirstKey(args, last) - part_begin, int64_t{0}),
          std::min(last + 1 - part_begin, int64_t{kAttentionPart})};
}

// The b-th block of a part, or the nearest of which a query reads.
inline int32_t BlockOf(const AttentionTile& tile, int64_t part_begin, int b) {
  const int64_t position = std::clamp(part_begin + b * kKvBlockTokens,
                                      tile.first_key, tile.end_key - 1);
  return tile.sequence->blocks[position / kKvBlockTokens];
}

inline void FindKeys(const AttentionArgs& args, const AttentionTile& tile,
                     int64_t part_begin, const std::byte** keys) {
  for (int b = 0; b < kPartBlocks; ++b) {
    keys[b] = args.layer.keys(BlockOf(tile, part_begin, b), tile.kv_head);
  }
}

// `end_part`: where the caller stops reading.
inline AttentionPart MakePart(const AttentionArgs& args,
                              const AttentionTile& tile, int64_t index,
                              int64_t end_part) {
  AttentionPart part;
  part.begin = index * kAttentionPart;
  FindKeys(args, tile, part.begin, part.keys);
  const int64_t next = std::min(index + 1, end_part - 1) * kAttentionPart;
  FindKeys(args, tile, next, part.after_values);
  for (int b = 0; b < kPartBlocks; ++b) {
    const int32_t block = BlockOf(tile, part.begin, b);
    const bool in_key = args.layer.value_in_key;
    part.values[b] =
        in_key ? part.keys[b] : args.layer.values(block, tile.kv_head);
    part.after_keys[b] = in_key ? part.after_values[b] : part.values[b];
  }
  return part;
}

}  // namespace
}  // namespace bullpen::kernels
