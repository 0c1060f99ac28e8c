#include "engine/experts/oracle_cache.h"

#include <algorithm>
#include <limits>
#include <tuple>

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
  const int64_t time = static_cast<int64_t>(now);
  const std::span<const int32_t> needed = stream.steps[now];
  counts.lookups += std::ssize(needed);
  for (const int32_t expert : needed) {
    counts.hits += holds_[expert];
    last_[expert] = time;
  }
  for (const int32_t expert : needed) {
    if (holds_[expert] == 0) Hold(expert, stream.slots, time);
  }
}

void OracleCache::Hold(int32_t expert, int32_t slots, int64_t now) {
  if (std::ssize(held_) < slots) {
    held_.push_back(expert);
    holds_[expert] = 1;
    return;
  }
  int32_t* victim = nullptr;
  for (int32_t& held : held_) {
    if (last_[held] == now) continue;
    if (victim == nullptr ||
        std::tuple(order_[held], last_[held], held) <
            std::tuple(order_[*victim], last_[*victim], *victim)) {
      victim = &held;
    }
  }
  if (victim == nullptr) return;  // fewer slots than the step needs
  holds_[*victim] = 0;
  holds_[expert] = 1;
  *victim = expert;
}

void OracleCache::CountSoon(std::span<const int32_t> experts, int64_t by) {
  for (const int32_t expert : experts) order_[expert] += by;
}

}  // namespace bullpen
