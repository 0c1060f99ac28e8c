#include "engine/top_selector.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "base/vector_clones.h"
#include "engine/softmax.h"

namespace bullpen {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// maxima[g] = the larger of it and row[g].
BULLPEN_VECTOR_CLONES void RaiseMaxima(std::span<const float> row,
                                       float* maxima) {
  for (size_t g = 0; g < row.size(); ++g) {
    maxima[g] = row[g] > maxima[g] ? row[g] : maxima[g];
  }
}

}  // namespace

// A value that at least `count` values reach, if that many are not NaN. Group
// g holds the values at g, g + groups, g + 2 * groups, ...
float TopSelector::Bound(std::span<const float> values, size_t count) {
  const size_t groups = std::max<size_t>(64, 4 * count);
  if (groups >= values.size()) return kLowest;
  maxima_.assign(groups, kLowest);
  for (size_t row = 0; row < values.size(); row += groups) {
    RaiseMaxima(values.subspan(row, std::min(groups, values.size() - row)),
                maxima_.data());
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
  FindBetween(values, bound, std::numeric_limits<float>::infinity(), ids_);
  const auto before = [values](int32_t a, int32_t b) {
    return values[a] != values[b] ? values[a] > values[b] : a < b;
  };
  const size_t kept = std::min<size_t>(count, ids_.size());
  std::partial_sort(ids_.begin(), ids_.begin() + kept, ids_.end(), before);
  ids_.resize(kept);
  return ids_;
}

}  // namespace bullpen
