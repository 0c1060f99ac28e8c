#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/model/kv_groups.h"

namespace bullpen {

// Which KV blocks of each group of layers are free. Ids only; the model owns
// the memory, sequences their tables. Engine thread.
class KvPool {
 public:
  // No sequence gets more than `step_rows` rows in one step.
  KvPool(std::span<const KvGroup> groups, int32_t step_rows);

  // Extends the tables to `tokens` tokens at least, in all groups or, where one
  // has too few free blocks, in none: false. No tables yet: makes them.
  bool Extend(std::vector<KvTable>& tables, int32_t tokens);
  // Takes back the blocks that no row from `position` on reads.
  void FreePassed(std::vector<KvTable>& tables, int32_t position);
  // Takes back all, and leaves no tables.
  void FreeAll(std::vector<KvTable>& tables);

  // Whether a sequence of as many tokens could be computed with what is free.
  bool HasRoomFor(int32_t tokens) const;
  // Tokens of the longest one that could be if all were free.
  int32_t longest() const { return longest_; }

  // Over all groups.
  int32_t free_blocks() const;
  int32_t blocks() const { return blocks_; }

 private:
  struct Group {
    int32_t window = 0;
    int32_t blocks = 0;
    std::vector<int32_t> free;
  };
  int32_t Needed(const Group& group, int32_t tokens) const;
  void Free(Group& group, KvTable& table, int32_t end);

  std::vector<Group> groups_;
  int32_t step_rows_;
  int32_t blocks_ = 0;
  int32_t longest_ = 0;
};

}  // namespace bullpen
