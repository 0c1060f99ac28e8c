#include "engine/experts/activation_store.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"

namespace bullpen {
namespace {

constexpr size_t kMatches = 3;
// Two requests of no common subject reach about this from popularity alone.
constexpr double kLeastLikeness = 0.3;

int32_t Width(const RoutingShape& shape) {
  int32_t width = 1;
  for (const RoutingShape::Layer& layer : shape.layers) {
    width = std::max(width, layer.experts);
  }
  return width;
}

// The cosine of the angle between them.
double Likeness(std::span<const float> a, std::span<const float> b) {
  double ab = 0;
  double aa = 0;
  double bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += double{a[i]} * b[i];
    aa += double{a[i]} * a[i];
    bb += double{b[i]} * b[i];
  }
  return aa == 0 || bb == 0 ? 0 : ab / std::sqrt(aa * bb);
}

}  // namespace

ActivationMatrix::ActivationMatrix(const RoutingShape& shape)
    : layers_(shape.layers),
      width_(Width(shape)),
      counts_(shape.layers.size() * static_cast<size_t>(width_)) {}

void ActivationMatrix::Add(int32_t layer, std::span<const int32_t> chosen) {
  float* const row = counts_.data() + int64_t{layer} * width_;
  for (const int32_t expert : chosen) ++row[expert];
  empty_ = empty_ && chosen.empty();
}

std::vector<float> ActivationMatrix::Shares() const {
  std::vector<float> shares = counts_;
  for (size_t l = 0; l < layers_.size(); ++l) {
    const auto row = std::span(shares).subspan(l * static_cast<size_t>(width_),
                                               static_cast<size_t>(width_));
    float uses = 0;
    for (const float count : row) uses += count;
    if (uses == 0) continue;
    const float tokens = uses / static_cast<float>(layers_[l].top_k);
    for (float& share : row) share /= tokens;
  }
  return shares;
}

ActivationStore::ActivationStore(const RoutingShape& shape, int32_t capacity)
    : matrix_size_(shape.layers.size() * static_cast<size_t>(Width(shape))),
      capacity_(static_cast<size_t>(capacity)) {
  CHECK(capacity >= 1) << capacity;
}

void ActivationStore::Add(const ActivationMatrix& request) {
  if (request.empty()) return;
  std::vector<float> shares = request.Shares();
  CHECK(shares.size() == matrix_size_) << shares.size();
  if (kept_.size() < capacity_) {
    kept_.push_back(std::move(shares));
    return;
  }
  *std::ranges::max_element(kept_, {}, [&](const std::vector<float>& one) {
    return Likeness(one, shares);
  }) = std::move(shares);
}

std::vector<float> ActivationStore::Match(
    const ActivationMatrix& beginning) const {
  const std::vector<float> shares = beginning.Shares();
  std::vector<std::pair<double, size_t>> likeness;
  for (size_t i = 0; i < kept_.size(); ++i) {
    const double like = Likeness(kept_[i], shares);
    if (like >= kLeastLikeness) likeness.emplace_back(-like, i);
  }
  std::ranges::sort(likeness);
  likeness.resize(std::min(likeness.size(), kMatches));
  if (likeness.empty()) return {};
  std::vector<float> mean(matrix_size_);
  double sum = 0;
  for (const auto& [negative, index] : likeness) sum -= negative;
  for (const auto& [negative, index] : likeness) {
    const float weight = static_cast<float>(-negative / sum);
    for (size_t i = 0; i < matrix_size_; ++i) {
      mean[i] += weight * kept_[index][i];
    }
  }
  return mean;
}

void ActivationStore::Restore(std::vector<std::vector<float>> matrices) {
  if (matrices.size() > capacity_) matrices.resize(capacity_);
  for (const std::vector<float>& matrix : matrices) {
    CHECK(matrix.size() == matrix_size_) << matrix.size();
  }
  kept_ = std::move(matrices);
}

}  // namespace bullpen
