#include "engine/kv_pool.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace bullpen {

KvPool::KvPool(std::span<const KvGroup> groups, int32_t step_rows)
    : step_rows_(step_rows), longest_(std::numeric_limits<int32_t>::max()) {
  for (const KvGroup& from : groups) {
    CHECK(from.blocks > 0) << "a KV pool of " << from.blocks << " blocks";
    Group& group = groups_.emplace_back();
    group.window = from.window;
    group.blocks = from.blocks;
    group.free.reserve(from.blocks);
    for (int32_t id = from.blocks - 1; id >= 0; --id) group.free.push_back(id);
    blocks_ += from.blocks;
    // Once a window's blocks go round, length is no matter.
    if (Needed(group, longest_) > group.blocks) {
      longest_ = group.blocks * kernels::kKvBlockTokens;  // less than before
    }
  }
}

int32_t KvPool::Needed(const Group& group, int32_t tokens) const {
  return KvBlocksNeeded(group.window,
                        {.context = tokens, .step_rows = step_rows_});
}

bool KvPool::Extend(std::vector<KvTable>& tables, int32_t tokens) {
  tables.resize(groups_.size());
  const size_t wanted = static_cast<size_t>(kernels::KvBlocksFor(tokens));
  for (size_t g = 0; g < groups_.size(); ++g) {
    const size_t held = tables[g].blocks.size();
    if (wanted > held + groups_[g].free.size()) return false;
  }
  for (size_t g = 0; g < groups_.size(); ++g) {
    std::vector<int32_t>& free = groups_[g].free;
    for (std::vector<int32_t>& blocks = tables[g].blocks;
         blocks.size() < wanted; free.pop_back()) {
      blocks.push_back(free.back());
    }
  }
  return true;
}

// Their ids stay in the table, which is indexed by position.
void KvPool::FreePassed(std::vector<KvTable>& tables, int32_t position) {
  for (size_t g = 0; g < tables.size(); ++g) {
    Free(groups_[g], tables[g], KvBlocksPassed(groups_[g].window, position));
  }
}

void KvPool::FreeAll(std::vector<KvTable>& tables) {
  for (size_t g = 0; g < tables.size(); ++g) {
    Free(groups_[g], tables[g], static_cast<int32_t>(tables[g].blocks.size()));
  }
  tables.clear();
}

// Those of the table up to `end` that are not given back yet.
void KvPool::Free(Group& group, KvTable& table, int32_t end) {
  const std::span<const int32_t> blocks =
      std::span<const int32_t>(table.blocks)
          .subspan(table.given_back, end - table.given_back);
  CHECK(group.free.size() + blocks.size() <= static_cast<size_t>(group.blocks))
      << "more blocks given back than the pool has";
  // Last taken, first given again: the order is the same in every run.
  group.free.insert(group.free.end(), blocks.rbegin(), blocks.rend());
  table.given_back = end;
}

bool KvPool::HasRoomFor(int32_t tokens) const {
  return std::ranges::all_of(groups_, [&](const Group& group) {
    return Needed(group, tokens) <= static_cast<int32_t>(group.free.size());
  });
}

int32_t KvPool::free_blocks() const {
  int32_t free = 0;
  for (const Group& group : groups_) {
    free += static_cast<int32_t>(group.free.size());
  }
  return free;
}

}  // namespace bullpen
