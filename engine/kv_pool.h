#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bullpen {

// Which KV blocks are free. Ids only; the model owns the memory. Engine thread.
class KvPool {
 public:
  explicit KvPool(int32_t blocks);
  // Appends `count` blocks to `table`, or takes none and returns false.
  bool Allocate(int32_t count, std::vector<int32_t>& table);
  // Gives all of `table` back and empties it.
  void Free(std::vector<int32_t>& table);
  // Gives some back; the caller does not use them again.
  void FreeSome(std::span<const int32_t> blocks);
  int32_t free_blocks() const { return static_cast<int32_t>(free_.size()); }
  int32_t blocks() const { return blocks_; }

 private:
  int32_t blocks_;
  std::vector<int32_t> free_;
};

}  // namespace bullpen
