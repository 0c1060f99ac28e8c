#include "engine/top_selector.h"

#include <algorithm>
#include <functional>
#include <limits>

namespace bullpen {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

}  // namespace

// A value that at least `count` values reach, if that many are not NaN. Group
// g holds the values at g, g + groups, g + 2 * groups, ...
float TopSelector::Bound(std::span<const float> values, size_t count) {
  const size_t groups = std::max<size_t>(64, 4 * count);
  if (groups >= values.size()) return kLowest;
  maxima_.assign(groups, kLowest);
  for (size_t row = 0; row < values.size(); row += groups) {
    const size_t width = std::min(groups, values.size() - row);
    const float* in = values.data() + row;
    float* maxima = maxima_.data();
    for (size_t g = 0; g < width; ++g) {
      maxima[g] = in[g] > maxima[g] ? in[g] : maxima[g];
    }
  }
  std::nth_element(maxima_.begin(), maxima_.begin() + count - 1, maxima_.end(),
                   std::greater<float>());
  return maxima_[count - 1];
}

std::span<const int32_t> TopSelector::Select(std::span<const float> values,
                                             int32_t count) {
  ids_.clear();
  if (count <= 0) return ids_;
  const float bound = Bound(values, count);
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] >= bound) ids_.push_back(static_cast<int32_t>(i));
  }
  const auto before = [values](int32_t a, int32_t b) {
    return values[a] != values[b] ? values[a] > values[b] : a < b;
  };
  const size_t kept = std::min<size_t>(count, ids_.size());
  std::partial_sort(ids_.begin(), ids_.begin() + kept, ids_.end(), before);
  ids_.resize(kept);
  return ids_;
}

}  // namespace bullpen
