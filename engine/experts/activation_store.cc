#include "engine/experts/activation_store.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <utility>

#include "base/check.h"

namespace bullpen {
namespace {

constexpr size_t kMatches = 3;
// Two requests of no common subject reach about this from popularity alone.
constexpr float kLeastLikeness = 0.3f;

int32_t Width(const RoutingShape& shape) {
  int32_t width = 1;
  for (const RoutingShape::Layer& layer : shape.layers) {
    width = std::max(width, layer.experts);
  }
  return width;
}

// Lanes of their own, so that the compiler may take them together.
float Dot(std::span<const float> a, std::span<const float> b) {
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> lanes = {};
  size_t i = 0;
  for (; i + kLanes <= a.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += a[i + lane] * b[i + lane];
    }
  }
  for (; i < a.size(); ++i) lanes[0] += a[i] * b[i];
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

float Length(std::span<const float> a) { return std::sqrt(Dot(a, a)); }

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
  size_t place = kept_.size();
  if (place < capacity_) {
    kept_.emplace_back();
    lengths_.emplace_back();
  } else {
    const std::vector<float> likenesses = Likenesses(shares);
    place = static_cast<size_t>(std::ranges::max_element(likenesses) -
                                likenesses.begin());
  }
  lengths_[place] = Length(shares);
  kept_[place] = std::move(shares);
}

// With each of those kept: the cosine of the angle between them.
std::vector<float> ActivationStore::Likenesses(
    std::span<const float> shares) const {
  const float length = Length(shares);
  std::vector<float> likenesses;
  for (size_t i = 0; i < kept_.size(); ++i) {
    const float lengths = length * lengths_[i];
    likenesses.push_back(lengths == 0 ? 0 : Dot(kept_[i], shares) / lengths);
  }
  return likenesses;
}

std::vector<float> ActivationStore::Match(
    const ActivationMatrix& beginning) const {
  const std::vector<float> likenesses = Likenesses(beginning.Shares());
  std::vector<size_t> best;
  for (size_t i = 0; i < kept_.size(); ++i) {
    if (likenesses[i] >= kLeastLikeness) best.push_back(i);
  }
  // The most like come first; ties go to the older.
  std::ranges::stable_sort(best, std::greater(),
                           [&](size_t i) { return likenesses[i]; });
  best.resize(std::min(best.size(), kMatches));
  if (best.empty()) return {};
  std::vector<float> mean(matrix_size_);
  float sum = 0;
  for (const size_t i : best) sum += likenesses[i];
  for (const size_t i : best) {
    const float weight = likenesses[i] / sum;
    for (size_t e = 0; e < matrix_size_; ++e) mean[e] += weight * kept_[i][e];
  }
  return mean;
}

void ActivationStore::Restore(std::vector<std::vector<float>> matrices) {
  if (matrices.size() > capacity_) matrices.resize(capacity_);
  for (const std::vector<float>& matrix : matrices) {
    CHECK(matrix.size() == matrix_size_) << matrix.size();
  }
  kept_ = std::move(matrices);
  lengths_.clear();
  for (const std::vector<float>& matrix : kept_) {
    lengths_.push_back(Length(matrix));
  }
}

}  // namespace bullpen
