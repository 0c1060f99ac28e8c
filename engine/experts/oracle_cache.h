#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bullpen {

struct HitCounts {
  int64_t lookups = 0;
  int64_t hits = 0;
  double rate() const {
    return lookups == 0 ? 0 : static_cast<double>(hits) / lookups;
  }
};

// What a cache of one layer would have hit under rules that look ahead, on
// steps that are known. Pure; keeps its memory from call to call.
class OracleCache {
 public:
  // Serves layers of at most so many experts.
  explicit OracleCache(int32_t experts);

  struct Stream {
    // The distinct experts of each step, in order.
    std::span<const std::span<const int32_t>> steps;
    int32_t slots = 0;
    // What the slots hold before, the most recently used last; as many as there
    // are slots at most.
    std::span<const int32_t> held = {};
  };
  // Evicts, among those that the step does not use, the one that the next
  // `segment` steps use least (ties: the least recently used). A segment of no
  // steps makes this LRU. Where a step uses more than there are slots, they
  // pass through them, and evict each other by the same rule.
  HitCounts Segment(const Stream& stream, int32_t segment);
  // Evicts the one that is not used for longest: nobody hits more.
  HitCounts Belady(const Stream& stream);

 private:
  void Begin(const Stream& stream);
  // The step's lookups; `order_` is as the rule wants it after them.
  void RunStep(const Stream& stream, size_t now, HitCounts& counts);
  void Hold(int32_t expert, const Stream& stream, size_t now);
  void CountSoon(std::span<const int32_t> experts, int64_t by);

  // By expert. The least order goes first, then the least recently used.
  std::vector<int64_t> order_;
  std::vector<int64_t> last_;  // when it was used last: step, then place
  std::vector<uint8_t> holds_;
  std::vector<int32_t> held_;  // in no order
  std::vector<int64_t> next_;  // by use: the order of its expert after it
  std::vector<int32_t> missing_;
};

}  // namespace bullpen
