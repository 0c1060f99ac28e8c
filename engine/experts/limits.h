#pragma once

#include <cstdint>

namespace bullpen {

// The most that the config of a model, or a routing trace, may declare: far
// above any model, and so few that tables of each pair of a layer's experts fit
// into memory.
inline constexpr int32_t kMaxLayers = 4096;
inline constexpr int32_t kMaxExpertsPerLayer = 1024;

// Of a routing trace: layers * experts^2, for replay's tables of all layers.
inline constexpr int64_t kMaxTracePairs = int64_t{1} << 28;
constexpr int64_t TracePairs(int64_t layers, int64_t experts) {
  return layers * experts * experts;
}

}  // namespace bullpen
