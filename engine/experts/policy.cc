#include "engine/experts/policy.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "base/check.h"

namespace bullpen {
namespace {
// A score grows by this many powers of two before all are scaled down: what
// falls below the smallest number is long forgotten.
constexpr double kEpochHalfLives = 512;
}  // namespace

EvictionPolicy::EvictionPolicy(int32_t experts, const PolicyConfig& config)
    : config_(config), entries_(static_cast<size_t>(experts)) {
  CHECK(experts > 0) << experts;
  CHECK(config.half_life_tokens > 0) << config.half_life_tokens;
}

double EvictionPolicy::Weight(int64_t now) {
  if (now == weight_time_) return weight_;
  double half_lives =
      static_cast<double>(now - epoch_) / config_.half_life_tokens;
  if (half_lives > kEpochHalfLives) {
    // The same factor for all: their order stays.
    const double factor = std::exp2(-half_lives);
    for (Entry& entry : entries_) entry.score *= factor;
    epoch_ = now;
    half_lives = 0;
  }
  weight_time_ = now;
  weight_ = std::exp2(half_lives);
  return weight_;
}

void EvictionPolicy::Use(int32_t expert, int64_t now, double count) {
  Entry& entry = entries_[expert];
  entry.last = ++uses_;
  switch (config_.kind) {
    case PolicyKind::kCrf:
      // Before the sum: Weight may scale the scores.
      count *= Weight(now);
      [[fallthrough]];
    case PolicyKind::kLfu:
      entry.score += count;
      return;
    case PolicyKind::kLru:
    case PolicyKind::kStatic:
    case PolicyKind::kBelady:
      return;
  }
}

void EvictionPolicy::SetScore(int32_t expert, double score) {
  entries_[expert].score = score;
}

double EvictionPolicy::Score(int32_t expert, int64_t now) const {
  const double score = entries_[expert].score;
  if (config_.kind != PolicyKind::kCrf) return score;
  return score * std::exp2(static_cast<double>(epoch_ - now) /
                           config_.half_life_tokens);
}

int32_t EvictionPolicy::Victim(std::span<const int32_t> candidates) const {
  CHECK(!candidates.empty());
  return *std::min_element(
      candidates.begin(), candidates.end(), [this](int32_t a, int32_t b) {
        const Entry& x = entries_[a];
        const Entry& y = entries_[b];
        return std::tie(x.score, x.last, a) < std::tie(y.score, y.last, b);
      });
}

}  // namespace bullpen
