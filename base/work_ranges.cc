#include "base/work_ranges.h"

#include <limits>

#include "base/check.h"

namespace bullpen {

// Who holds an item is all that the words say, and each changes in one step, so
// no order is needed between them: what the items work on is made visible by
// whoever starts and ends the sharing out.

void WorkRanges::Reset(int64_t count) {
  CHECK(count >= 0 && count <= std::numeric_limits<uint32_t>::max())
      << "count = " << count;
  for (int64_t w = 0; w < workers_; ++w) {
    const Bounds share = {static_cast<uint32_t>(count * w / workers_),
                          static_cast<uint32_t>(count * (w + 1) / workers_)};
    ranges_[w].word.store(Pack(share), std::memory_order_relaxed);
  }
}

std::optional<int64_t> WorkRanges::Take(int worker) {
  std::atomic<uint64_t>& mine = ranges_[worker].word;
  uint64_t word = mine.load(std::memory_order_relaxed);
  while (Unpack(word).next < Unpack(word).end) {
    const Bounds left = Unpack(word);
    if (mine.compare_exchange_weak(word, Pack({left.next + 1, left.end}),
                                   std::memory_order_relaxed)) {
      return left.next;
    }
  }
  return Steal(worker);
}

std::optional<int64_t> WorkRanges::Steal(int worker) {
  while (true) {
    int victim = -1;
    uint64_t word = 0;
    uint32_t most = 0;
    for (int w = 0; w < workers_; ++w) {
      const uint64_t at = ranges_[w].word.load(std::memory_order_relaxed);
      const Bounds left = Unpack(at);
      if (left.end - left.next > most) {
        victim = w;
        word = at;
        most = left.end - left.next;
      }
    }
    if (victim < 0) return std::nullopt;
    const Bounds left = Unpack(word);
    const uint32_t middle = left.next + most / 2;
    if (ranges_[victim].word.compare_exchange_strong(
            word, Pack({left.next, middle}), std::memory_order_relaxed)) {
      ranges_[worker].word.store(Pack({middle + 1, left.end}),
                                 std::memory_order_relaxed);
      return middle;
    }
  }
}

}  // namespace bullpen
