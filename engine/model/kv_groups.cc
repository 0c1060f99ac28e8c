#include "engine/model/kv_groups.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace bullpen {
namespace {

constexpr int64_t kMostBlocks = std::numeric_limits<int32_t>::max();

}  // namespace

std::vector<KvGroup> KvGroupsOf(const ModelConfig& config) {
  std::vector<KvGroup> groups;
  for (const LayerConfig& layer : config.layers) {
    auto group = std::ranges::find(groups, layer.window, &KvGroup::window);
    if (group == groups.end()) {
      group = groups.insert(group, {.window = layer.window});
    }
    ++group->layers;
  }
  return groups;
}

int32_t FindKvGroup(std::span<const KvGroup> groups, int32_t window) {
  const auto group = std::ranges::find(groups, window, &KvGroup::window);
  CHECK(group != groups.end()) << "no KV group has the window " << window;
  return static_cast<int32_t>(group - groups.begin());
}

int32_t KvBlocksPassed(int32_t window, int32_t position) {
  if (window == 0) return 0;
  return std::max(position - window + 1, 0) / kernels::kKvBlockTokens;
}

int32_t KvBlocksNeeded(int32_t window, const KvLimits& limits) {
  const int64_t whole = kernels::KvBlocksFor(limits.context);
  if (window == 0) return static_cast<int32_t>(whole);
  // The keys of a step's rows are so many in a row; where their first one
  // stands in its block is not known.
  const int64_t keys = int64_t{window} + limits.step_rows - 1;
  return static_cast<int32_t>(
      std::min(whole, kernels::KvBlocksFor(keys - 1) + 1));
}

int64_t KvBlocksNeeded(int32_t window, const KvLimits& limits,
                       int32_t sequences) {
  const int64_t alone = int64_t{KvBlocksNeeded(window, limits)} * sequences;
  if (window == 0) return alone;
  // A sequence of r rows holds ceil((window + r - 2) / block) + 1 blocks; the
  // sum of that, where one row of each comes beside step_rows of all.
  constexpr int64_t kBlock = kernels::kKvBlockTokens;
  const int64_t keys =
      sequences * (int64_t{window} - 2 + kBlock) + limits.step_rows;
  return std::min(alone, keys / kBlock + sequences);
}

int32_t KvContexts(std::span<const KvGroup> groups, const KvLimits& limits) {
  int32_t contexts = std::numeric_limits<int32_t>::max();
  for (const KvGroup& group : groups) {
    contexts =
        std::min(contexts, group.blocks / KvBlocksNeeded(group.window, limits));
  }
  return contexts;
}

std::vector<KvTable> FixedKvTables(std::span<const KvGroup> groups,
                                   const KvLimits& limits, int32_t index) {
  CHECK(index < KvContexts(groups, limits)) << index << " contexts and one";
  std::vector<KvTable> tables(groups.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    const int32_t held = KvBlocksNeeded(groups[g].window, limits);
    tables[g].blocks.resize(kernels::KvBlocksFor(limits.context));
    for (size_t i = 0; i < tables[g].blocks.size(); ++i) {
      tables[g].blocks[i] = index * held + static_cast<int32_t>(i) % held;
    }
  }
  return tables;
}

KvSizes::KvSizes(const ModelConfig& config, const KvLimits& limits,
                 int32_t max_sequences, int64_t block_bytes)
    : groups_(KvGroupsOf(config)),
      limits_(limits),
      max_sequences_(max_sequences),
      block_bytes_(block_bytes) {
  for (const KvGroup& group : groups_) {
    least_ = std::max(least_, KvBlocksNeeded(group.window, limits));
    const int64_t most = KvBlocksNeeded(group.window, limits, max_sequences);
    most_ = std::max(most_, static_cast<int32_t>(std::min(most, kMostBlocks)));
  }
}

// Who sets the memory for KV by hand gets it all, but not for keys that no row
// can read.
int32_t KvSizes::Blocks(const KvGroup& group, int32_t size) const {
  if (group.window == 0) return size;
  const int64_t most = KvBlocksNeeded(group.window, limits_, max_sequences_);
  return static_cast<int32_t>(std::min<int64_t>(size, most));
}

std::vector<KvGroup> KvSizes::Groups(int32_t size) const {
  std::vector<KvGroup> groups = groups_;
  for (KvGroup& group : groups) group.blocks = Blocks(group, size);
  return groups;
}

int64_t KvSizes::Bytes(int32_t size) const {
  int64_t bytes = 0;
  for (const KvGroup& group : groups_) {
    bytes += int64_t{Blocks(group, size)} * group.layers * block_bytes_;
  }
  return bytes;
}

int32_t KvSizes::SizeFor(int64_t bytes) const {
  // Of those from 0 on, the last that fits: halving what lies between.
  int64_t fits = 0;
  int64_t beyond = std::min(bytes / block_bytes_, kMostBlocks - 1) + 1;
  while (beyond - fits > 1) {
    const int64_t middle = fits + (beyond - fits) / 2;
    (Bytes(static_cast<int32_t>(middle)) <= bytes ? fits : beyond) = middle;
  }
  return static_cast<int32_t>(fits);
}

}  // namespace bullpen
