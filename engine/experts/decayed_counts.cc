#include "engine/experts/decayed_counts.h"

#include <cmath>

#include "base/check.h"

namespace bullpen {
namespace {
// A score grows by this many powers of two before all are scaled down: what
// falls below the smallest number is long forgotten.
constexpr double kEpochHalfLives = 512;
}  // namespace

DecayedCounts::DecayedCounts(int32_t experts, double half_life_tokens)
    : half_life_(half_life_tokens), scores_(static_cast<size_t>(experts)) {
  CHECK(half_life_tokens >= 0) << half_life_tokens;
}

double DecayedCounts::Weight(int64_t now) {
  if (now == weight_time_) return weight_;
  double half_lives = static_cast<double>(now - epoch_) / half_life_;
  if (half_lives > kEpochHalfLives) {
    // The same factor for all: their order stays.
    const double factor = std::exp2(-half_lives);
    for (double& score : scores_) score *= factor;
    epoch_ = now;
    half_lives = 0;
  }
  weight_time_ = now;
  weight_ = std::exp2(half_lives);
  return weight_;
}

void DecayedCounts::Add(int32_t expert, int64_t now, double count) {
  if (half_life_ == 0) return;
  // Before the sum: Weight may scale the scores.
  const double added = count * Weight(now);
  scores_[expert] += added;
}

double DecayedCounts::Score(int32_t expert, int64_t now) const {
  if (half_life_ == 0) return 0;
  if (now == weight_time_) return scores_[expert] / weight_;
  return scores_[expert] *
         std::exp2(static_cast<double>(epoch_ - now) / half_life_);
}

}  // namespace bullpen
