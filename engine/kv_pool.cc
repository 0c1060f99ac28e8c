#include "engine/kv_pool.h"

#include "base/check.h"

namespace bullpen {

KvPool::KvPool(int32_t blocks) : blocks_(blocks) {
  CHECK(blocks > 0) << "a KV pool of " << blocks << " blocks";
  free_.reserve(blocks);
  for (int32_t id = blocks - 1; id >= 0; --id) free_.push_back(id);
}

bool KvPool::Allocate(int32_t count, std::vector<int32_t>& table) {
  if (count > free_blocks()) return false;
  for (; count > 0; --count) {
    table.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

void KvPool::Free(std::vector<int32_t>& table) {
  FreeSome(table);
  table.clear();
}

void KvPool::FreeSome(std::span<const int32_t> blocks) {
  CHECK(free_.size() + blocks.size() <= static_cast<size_t>(blocks_))
      << "more blocks given back than the pool has";
  // Last taken, first given again: the order is the same in every run.
  free_.insert(free_.end(), blocks.rbegin(), blocks.rend());
}

}  // namespace bullpen
