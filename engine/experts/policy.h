#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bullpen {

// Which resident expert of a layer goes first: the one with the least decayed
// frequency, s = sum over its uses of 2^(-(now - then) / half_life), time in
// tokens; ties to the least recently used, then the lowest index. Pure: no
// clock, no threads; the live cache and the trace simulator share it.
class DecayedFrequency {
 public:
  DecayedFrequency(int32_t experts, double half_life_tokens);

  // `count` tokens used `expert` at time `now` (tokens seen by the layer).
  void Use(int32_t expert, int64_t now, double count = 1);
  double Score(int32_t expert, int64_t now) const;
  // The first to go among `candidates` (not empty).
  int32_t Victim(std::span<const int32_t> candidates, int64_t now) const;

 private:
  struct Entry {
    double score = 0;   // at time `last`
    int64_t last = -1;  // -1 = never used
  };
  double half_life_;
  std::vector<Entry> entries_;
};

}  // namespace bullpen
