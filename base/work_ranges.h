#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

namespace bullpen {

// Items [0, count) shared out among workers: each starts with adjacent ones and
// takes them in their order, so that what it reads in memory is one stream;
// whoever has none left takes over the upper half of what the worker with the
// most has left. Without locks: a worker that is late or asleep delays nobody.
class WorkRanges {
 public:
  explicit WorkRanges(int workers)
      : workers_(workers), ranges_(new Range[static_cast<size_t>(workers)]) {}

  // Shares out anew, 0 <= count < 2^32, while nobody takes.
  void Reset(int64_t count);

  // Any thread, but one at a time for each worker: its next item. None: every
  // item has been taken, though perhaps not yet been worked on.
  std::optional<int64_t> Take(int worker);

 private:
  // The items [next, end), in the high and the low half of one word.
  struct Bounds {
    uint32_t next;
    uint32_t end;
  };
  struct alignas(64) Range {
    std::atomic<uint64_t> word{0};
  };
  static uint64_t Pack(Bounds b) { return uint64_t{b.next} << 32 | b.end; }
  static Bounds Unpack(uint64_t word) {
    return {static_cast<uint32_t>(word >> 32), static_cast<uint32_t>(word)};
  }

  // Moves half of another worker's items to `worker`, who has none, and takes
  // the first of them at once: two who have none cannot pass the last item to
  // and fro. None if nobody has any.
  std::optional<int64_t> Steal(int worker);

  int workers_;
  std::unique_ptr<Range[]> ranges_;
};

}  // namespace bullpen
