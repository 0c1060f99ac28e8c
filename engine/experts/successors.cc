#include "engine/experts/successors.h"

#include <algorithm>

namespace bullpen {
namespace {
constexpr double kHalfLife = 16;  // of the frequency, in tokens
constexpr int32_t kRowUses = 64;  // see ConditionalTable
}  // namespace

Successors::Successors(int32_t experts)
    : followed_(experts, experts, kRowUses),
      uses_(experts + 1, kHalfLife),
      frequency_(static_cast<size_t>(experts)),
      scores_(static_cast<size_t>(experts)) {
  used_.reserve(static_cast<size_t>(experts));
  before_.reserve(static_cast<size_t>(experts));
}

bool Successors::Tells(const std::vector<int32_t>& used) const {
  return !used.empty() && used.size() <= scores_.size() / 2;
}

void Successors::BeginStep() {
  known_ = false;
  if (Tells(before_) && Tells(used_)) followed_.Learn(before_, used_);
  std::swap(before_, used_);
  used_.clear();
}

void Successors::Use(int32_t expert, int64_t now, double count, bool first) {
  known_ = false;
  if (now > now_) {
    uses_.Add(experts(), now, static_cast<double>(now - now_));
    now_ = now;
  }
  uses_.Add(expert, now, count);
  if (first) used_.push_back(expert);
}

double Successors::Score(int32_t expert) const {
  if (!known_) Estimate();
  return scores_[expert];
}

void Successors::Estimate() const {
  known_ = true;
  const double tokens = now_ > 0 ? uses_.Order(experts()) : 1;
  for (int32_t e = 0; e < experts(); ++e) {
    frequency_[e] = static_cast<float>(uses_.Order(e) / tokens);
  }
  if (Tells(used_)) {
    followed_.Estimate(used_, frequency_, scores_);
  } else {
    std::ranges::copy(frequency_, scores_.begin());
  }
}

}  // namespace bullpen
