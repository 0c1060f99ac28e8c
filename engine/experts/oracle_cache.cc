#include "engine/experts/oracle_cache.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace bullpen {

OracleCache::OracleCache(int32_t experts)
    : order_(static_cast<size_t>(experts)),
      last_(static_cast<size_t>(experts)),
      holds_(static_cast<size_t>(experts)) {
  held_.reserve(static_cast<size_t>(experts));
}

HitCounts OracleCache::Segment(const Stream& stream, int32_t segment) {
  Begin(stream);
  std::ranges::fill(order_, 0);
  const auto steps = stream.steps;
  const size_t ahead = static_cast<size_t>(segment);
  for (size_t i = 0; i < std::min(ahead, steps.size()); ++i) {
    CountSoon(steps[i], 1);
  }
  HitCounts counts;
  for (size_t now = 0; now < steps.size(); ++now) {
    // The steps after this one count.
    if (ahead > 0) CountSoon(steps[now], -1);
    if (ahead > 0 && now + ahead < steps.size()) {
      CountSoon(steps[now + ahead], 1);
    }
    RunStep(stream, now, counts);
  }
  return counts;
}

HitCounts OracleCache::Belady(const Stream& stream) {
  Begin(stream);
  const auto steps = stream.steps;
  std::ranges::fill(order_, std::numeric_limits<int64_t>::min());
  next_.clear();
  for (size_t now = steps.size(); now-- > 0;) {
    for (const int32_t expert : steps[now]) {
      next_.push_back(order_[expert]);
      order_[expert] = -static_cast<int64_t>(now);
    }
  }
  HitCounts counts;
  size_t use = next_.size();
  for (size_t now = 0; now < steps.size(); ++now) {
    use -= steps[now].size();
    for (size_t i = 0; i < steps[now].size(); ++i) {
      order_[steps[now][i]] = next_[use + i];
    }
    RunStep(stream, now, counts);
  }
  return counts;
}

void OracleCache::Begin(const Stream& stream) {
  std::ranges::fill(last_, std::numeric_limits<int64_t>::min());
  std::ranges::fill(holds_, uint8_t{0});
  held_.assign(stream.held.begin(), stream.held.end());
  for (size_t i = 0; i < held_.size(); ++i) {
    holds_[held_[i]] = 1;
    last_[held_[i]] = static_cast<int64_t>(i) - std::ssize(held_);
  }
}

void OracleCache::RunStep(const Stream& stream, size_t now, HitCounts& counts) {
  const std::span<const int32_t> needed = stream.steps[now];
  int64_t time = static_cast<int64_t>(now) * std::ssize(order_);
  counts.lookups += std::ssize(needed);
  missing_.clear();
  for (const int32_t expert : needed) {
    last_[expert] = time++;
    if (holds_[expert] == 0) missing_.push_back(expert);
  }
  counts.hits += std::ssize(needed) - std::ssize(missing_);
  // Those that stay come last.
  if (std::ssize(needed) > stream.slots) {
    std::ranges::stable_sort(missing_, {},
                             [this](int32_t e) { return order_[e]; });
  }
  for (const int32_t expert : missing_) Hold(expert, stream, now);
}

void OracleCache::Hold(int32_t expert, const Stream& stream, size_t now) {
  if (std::ssize(held_) < stream.slots) {
    holds_[expert] = 1;
    held_.push_back(expert);
    return;
  }
  const bool spares_step = std::ssize(stream.steps[now]) <= stream.slots;
  const int64_t step_begin = static_cast<int64_t>(now) * std::ssize(order_);
  int32_t* victim = nullptr;
  for (int32_t& held : held_) {
    if (spares_step && last_[held] >= step_begin) continue;
    if (victim == nullptr || std::pair(order_[held], last_[held]) <
                                 std::pair(order_[*victim], last_[*victim])) {
      victim = &held;
    }
  }
  // A step that is too large may use an expert and let it go again.
  if (!spares_step && order_[expert] < order_[*victim]) return;
  holds_[*victim] = 0;
  holds_[expert] = 1;
  *victim = expert;
}

void OracleCache::CountSoon(std::span<const int32_t> experts, int64_t by) {
  for (const int32_t expert : experts) order_[expert] += by;
}

}  // namespace bullpen
