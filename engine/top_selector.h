#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bullpen {

// Finds the largest of many values without sorting them all: the n-th largest
// of 4n group maxima is a bound that few others pass. Keeps its memory.
class TopSelector {
 public:
  // The indices of the `count` largest values, descending, ties to the lowest
  // index; NaN is never chosen. Valid until the next call.
  std::span<const int32_t> Select(std::span<const float> values, int32_t count);

 private:
  float Bound(std::span<const float> values, size_t count);

  std::vector<float> maxima_;
  std::vector<int32_t> ids_;
};

}  // namespace bullpen
