#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bullpen {

// For one layer, the decayed share of recent tokens that used each expert: an
// estimate of the probability that the next token will. Starts at what even
// routing would give. Pure; one thread.
class Popularity {
 public:
  Popularity(int32_t experts, int32_t top_k, double half_life_tokens);

  // `tokens` tokens chose `chosen`, all of their experts in a row.
  void Learn(std::span<const int32_t> chosen, int32_t tokens);

  std::span<const float> shares() const { return shares_; }
  // The log-odds of shares(), computed once after each Learn.
  std::span<const float> log_odds();
  // For a profile; each in [0, 1].
  void Restore(std::span<const float> shares);

 private:
  double half_life_;
  bool fresh_ = false;  // log_odds_ are those of shares_
  std::vector<float> shares_;
  std::vector<float> log_odds_;
};

}  // namespace bullpen
