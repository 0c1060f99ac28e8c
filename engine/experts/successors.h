#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/experts/conditional_table.h"
#include "engine/experts/decayed_counts.h"

namespace bullpen {

// How likely the next step of a layer is to use each of its experts, given what
// its last one used: the mean over those of P(e | i), how often a step that
// used i was followed, in this layer, by one that used e (ConditionalTable),
// smoothed by one more step with the decayed frequency of e. Takes 2 *
// experts^2 bytes. Pure; one thread.
class Successors {
 public:
  explicit Successors(int32_t experts);

  void BeginStep();
  // The step that runs uses `expert`, in `count` of its tokens. As
  // EvictionPolicy::Use; `first`: it has not used it before.
  void Use(int32_t expert, int64_t now, double count, bool first);
  // What the step that runs has used so far, and the score given that.
  std::span<const int32_t> used() const { return used_; }
  double Score(int32_t expert) const;

 private:
  // After a step that used more than half of the experts, a prompt's, anything
  // may follow.
  bool Tells(const std::vector<int32_t>& used) const;
  int32_t experts() const { return static_cast<int32_t>(scores_.size()); }
  void Estimate() const;

  ConditionalTable followed_;
  DecayedCounts uses_;  // by expert; the last is of the tokens
  int64_t now_ = 0;
  std::vector<int32_t> used_;
  std::vector<int32_t> before_;  // by the step before
  // What Score says, made when it is asked for.
  mutable bool known_ = false;
  mutable std::vector<float> frequency_;
  mutable std::vector<float> scores_;
};

}  // namespace bullpen
