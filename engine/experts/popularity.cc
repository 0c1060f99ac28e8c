#include "engine/experts/popularity.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "engine/experts/log_odds.h"

namespace bullpen {

Popularity::Popularity(int32_t experts, int32_t top_k, double half_life_tokens)
    : half_life_(half_life_tokens),
      shares_(static_cast<size_t>(experts),
              static_cast<float>(top_k) / static_cast<float>(experts)),
      log_odds_(shares_.size()) {
  CHECK(half_life_tokens > 0) << half_life_tokens;
}

void Popularity::Learn(std::span<const int32_t> chosen, int32_t tokens) {
  const float keep = static_cast<float>(std::exp2(-tokens / half_life_));
  for (float& share : shares_) share *= keep;
  const float gain = (1 - keep) / static_cast<float>(tokens);
  for (const int32_t expert : chosen) shares_[expert] += gain;
  fresh_ = false;
}

std::span<const float> Popularity::log_odds() {
  if (!fresh_) {
    for (size_t e = 0; e < shares_.size(); ++e) {
      log_odds_[e] = LogOdds(shares_[e]);
    }
    fresh_ = true;
  }
  return log_odds_;
}

void Popularity::Restore(std::span<const float> shares) {
  CHECK(shares.size() == shares_.size());
  std::ranges::copy(shares, shares_.begin());
  fresh_ = false;
}

}  // namespace bullpen
