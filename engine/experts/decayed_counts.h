#pragma once

#include <cstdint>
#include <vector>

namespace bullpen {

// For each expert of a layer, s = sum over its uses of
// count * 2^(-(now - then) / half_life), time in tokens. A half-life of 0
// forgets at once: all scores are 0. Pure.
class DecayedCounts {
 public:
  DecayedCounts(int32_t experts, double half_life_tokens);  // >= 0

  // `now` never goes back.
  void Add(int32_t expert, int64_t now, double count);
  double Score(int32_t expert, int64_t now) const;
  // 2^((now - epoch) / half_life) times the score at any `now`. All experts
  // have the same factor, so order needs no decay.
  double Order(int32_t expert) const { return scores_[expert]; }

 private:
  double Weight(int64_t now);

  double half_life_;
  int64_t epoch_ = 0;  // moves up before a score could overflow
  int64_t weight_time_ = -1;
  double weight_ = 1;  // Weight(weight_time_)
  std::vector<double> scores_;
};

}  // namespace bullpen
