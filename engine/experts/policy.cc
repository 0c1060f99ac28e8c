#include "engine/experts/policy.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace bullpen {
namespace {
// Steps of a layer after which a lead counts half.
constexpr double kChoiceHalfLife = 32;
// Of the lookups: what choices may lose against LRU before they must be sure.
constexpr double kAllowedLoss = 0.002;
// Of a lead: so many standard deviations, if its steps were chance.
constexpr double kSure = 4;
}  // namespace

void RuleChoice::Count(const ShadowHits& step, double layers) {
  static_assert(kHalfLives[0] == 0, "the first rule is LRU");
  const double keep = std::exp2(-1 / (kChoiceHalfLife * layers));
  lost_ += step.by_rule[0] - step.chosen;
  lookups_ += step.lookups;
  const bool behind =
      static_cast<double>(lost_) > kAllowedLoss * static_cast<double>(lookups_);
  best_ = 0;
  for (size_t i = 1; i < kRules; ++i) {
    const double lead = step.by_rule[i] - step.by_rule[0];
    leads_[i] = leads_[i] * keep + lead;
    squares_[i] = squares_[i] * keep + lead * lead;
    const double least = behind ? kSure * std::sqrt(squares_[i]) : 0;
    // Ties go to the last.
    if (leads_[i] >= std::max(least, leads_[best_])) best_ = i;
  }
}

EvictionPolicy::EvictionPolicy(int32_t experts, int32_t slots,
                               const PolicyConfig& config)
    : config_(config),
      slots_(static_cast<size_t>(slots)),
      last_(static_cast<size_t>(experts)),
      last_time_(static_cast<size_t>(experts)),
      scores_(static_cast<size_t>(experts)) {
  CHECK(experts > 0) << experts;
  CHECK(config.half_life_tokens >= 0) << config.half_life_tokens;
  if (config.kind != PolicyKind::kCrf) return;
  if (config.half_life_tokens > 0) {
    counts_.emplace_back(experts, config.half_life_tokens);
    return;
  }
  // Where nothing ever goes there is no choice.
  if (slots >= experts && !config.slots_move) return;
  successors_.emplace(experts);
  for (const double half_life : kHalfLives) {
    counts_.emplace_back(experts, half_life);
  }
  shadows_.resize(kRules + 1);
  for (Shadow& shadow : shadows_) {
    shadow.held.reserve(slots_);
    shadow.holds.resize(static_cast<size_t>(experts));
  }
}

void EvictionPolicy::Use(int32_t expert, int64_t now, double count) {
  if (chooses()) {
    if (now != step_time_) {
      EndStep();
      step_time_ = now;
      step_start_ = uses_;
    }
    const bool first = last_[expert] <= step_start_;
    successors_->Use(expert, now, count, first);
  }
  last_[expert] = ++uses_;
  last_time_[expert] = now;
  if (config_.kind == PolicyKind::kLfu) scores_[expert] += count;
  for (DecayedCounts& counts : counts_) counts.Add(expert, now, count);
}

void EvictionPolicy::SetScore(int32_t expert, double score) {
  scores_[expert] = score;
}

double EvictionPolicy::Score(int32_t expert, int64_t now) const {
  if (counts_.empty()) return scores_[expert];
  const size_t at_work = rule();
  return at_work < counts_.size() ? counts_[at_work].Score(expert, now)
                                  : successors_->Score(expert);
}

int32_t EvictionPolicy::Victim(std::span<const int32_t> candidates) const {
  CHECK(!candidates.empty());
  const size_t at_work = rule();
  return *std::ranges::min_element(candidates,
                                   [this, at_work](int32_t a, int32_t b) {
                                     return GoesBefore(a, b, at_work);
                                   });
}

size_t EvictionPolicy::rule() const {
  if (!chooses()) return 0;
  return config_.choice != nullptr ? config_.choice->best()
                                   : own_choice_.best();
}

double EvictionPolicy::Order(int32_t expert, size_t rule) const {
  if (counts_.empty()) return scores_[expert];
  return rule < counts_.size() ? counts_[rule].Order(expert)
                               : successors_->Score(expert);
}

bool EvictionPolicy::GoesBefore(int32_t a, int32_t b, size_t rule) const {
  const double x = Order(a, rule);
  const double y = Order(b, rule);
  return x != y ? x < y : IsOlder(a, b);
}

bool EvictionPolicy::IsOlder(int32_t a, int32_t b) const {
  return last_[a] != last_[b] ? last_[a] < last_[b] : a < b;
}

// Shadows see a step once it is complete, so that they too keep what it needs.
// One that needs more than the slots (a prompt) would tell nothing.
void EvictionPolicy::EndStep() {
  const size_t used = successors_->used().size();
  if (used > 0 && used <= slots_) {
    ShadowHits hits{.chosen = RunShadow(shadows_[kRules], rule()),
                    .lookups = static_cast<int32_t>(used)};
    for (size_t i = 0; i < kRules; ++i) {
      hits.by_rule[i] = RunShadow(shadows_[i], i);
    }
    choice().Count(hits, config_.layers);
  }
  successors_->BeginStep();
}

// Returns how many of the step's lookups hit. The scores have the step's uses
// in them already, as a live victim's do.
int32_t EvictionPolicy::RunShadow(Shadow& shadow, size_t rule) {
  int32_t hits = 0;
  const std::span<const int32_t> used = successors_->used();
  for (const int32_t expert : used) hits += shadow.holds[expert];
  for (const int32_t expert : used) {
    if (shadow.holds[expert]) continue;
    shadow.holds[expert] = true;
    if (shadow.held.size() < slots_) {
      shadow.held.push_back(expert);
      continue;
    }
    int32_t* victim = nullptr;
    double least = 0;
    for (int32_t& held : shadow.held) {
      if (last_[held] > step_start_) continue;
      const double order = Order(held, rule);
      if (victim == nullptr || order < least ||
          (order == least && IsOlder(held, *victim))) {
        victim = &held;
        least = order;
      }
    }
    shadow.holds[*victim] = false;
    *victim = expert;
  }
  return hits;
}

}  // namespace bullpen
