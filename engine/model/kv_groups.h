#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/model/config.h"
#include "kernels/kv_layout.h"

namespace bullpen {

// Layers of one window attend to the same keys, so they share block tables and
// have blocks of their own: one holds kKvBlockTokens tokens of each of them.
struct KvGroup {
  int32_t window = 0;  // keys that a row attends to, its own included; 0 = all
  int32_t layers = 0;
  int32_t blocks = 0;  // that there is memory for
};

// One sequence's blocks in a group, by position. The first `given_back` have
// left the window: they may be another's by now, and are not read.
struct KvTable {
  std::vector<int32_t> blocks;
  int32_t given_back = 0;
};

// What a sequence may become.
struct KvLimits {
  int32_t context = 0;    // tokens
  int32_t step_rows = 0;  // rows of one step, at most
};

// A model's groups, in the order of their first layers; without blocks.
std::vector<KvGroup> KvGroupsOf(const ModelConfig& config);

// Index of the group that has this window; there is one.
int32_t FindKvGroup(std::span<const KvGroup> groups, int32_t window);

// Of the blocks of a sequence, how many no row from `position` on reads.
int32_t KvBlocksPassed(int32_t window, int32_t position);

// Blocks that a sequence holds at a time at most, if it gives back those that
// have left the window after each step.
int32_t KvBlocksNeeded(int32_t window, const KvLimits& limits);

// The same for `sequences` of them together, which share a step's rows: enough
// for one more to begin with a whole step while the others decode.
int64_t KvBlocksNeeded(int32_t window, const KvLimits& limits,
                       int32_t sequences);

// Whole contexts that fit the groups' blocks side by side.
int32_t KvContexts(std::span<const KvGroup> groups, const KvLimits& limits);

// Tables for the `index`-th of those contexts, [groups], for callers that have
// no scheduler: the blocks of a windowed group go round as its rows advance.
std::vector<KvTable> FixedKvTables(std::span<const KvGroup> groups,
                                   const KvLimits& limits, int32_t index);

// How blocks are dealt to the groups. One number is the size of all of them:
// each group has that many blocks, or as many as `max_sequences` can hold
// there, if that is less. So a windowed group never runs out before the others.
class KvSizes {
 public:
  // `block_bytes`: of one layer.
  KvSizes(const ModelConfig& config, const KvLimits& limits,
          int32_t max_sequences, int64_t block_bytes);

  // For one whole context, and for max_sequences of them.
  int32_t least() const { return least_; }
  int32_t most() const { return most_; }
  std::vector<KvGroup> Groups(int32_t size) const;
  int64_t Bytes(int32_t size) const;
  // The largest size that takes no more than that.
  int32_t SizeFor(int64_t bytes) const;

 private:
  // A group's blocks at that size.
  int32_t Blocks(const KvGroup& group, int32_t size) const;

  std::vector<KvGroup> groups_;
  KvLimits limits_;
  int32_t max_sequences_;
  int64_t block_bytes_;
  int32_t least_ = 0;
  int32_t most_ = 0;
};

}  // namespace bullpen
