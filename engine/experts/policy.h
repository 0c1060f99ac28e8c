#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bullpen {

enum class PolicyKind : uint8_t {
  kCrf,     // decayed frequency: the live cache's rule
  kLru,     // least recently used
  kLfu,     // least often used
  kStatic,  // fixed scores from a profile
  kBelady,  // scores are set from the future: simulator only
};

struct PolicyConfig {
  PolicyKind kind = PolicyKind::kCrf;
  double half_life_tokens = 16;  // kCrf; > 0
};

// Which resident expert of a layer goes first: the one with the least score,
// ties to the least recently used (in the order of Use calls), then to the
// lowest index. The kinds differ in the score alone. kCrf: s = sum over its
// uses of count * 2^(-(now - then) / half_life), time in tokens. Scores outlive
// residency. Pure: no clock, no threads; the live cache and the trace simulator
// share it.
class EvictionPolicy {
 public:
  EvictionPolicy(int32_t experts, const PolicyConfig& config);

  // `count` tokens used `expert` at time `now` (tokens seen by the layer),
  // which never goes back.
  void Use(int32_t expert, int64_t now, double count = 1);
  // For kStatic and kBelady: larger stays longer.
  void SetScore(int32_t expert, double score);
  double Score(int32_t expert, int64_t now) const;
  // The first to go among `candidates` (not empty).
  int32_t Victim(std::span<const int32_t> candidates) const;

 private:
  struct Entry {
    // kCrf: 2^((now - epoch_) / half_life) times the score at `now`. All
    // entries have the same factor, so order needs no decay.
    double score = 0;
    int64_t last = 0;  // number of its last use; 0 = never used
  };
  double Weight(int64_t now);

  PolicyConfig config_;
  int64_t uses_ = 0;
  int64_t epoch_ = 0;  // moves up before a score could overflow
  int64_t weight_time_ = -1;
  double weight_ = 1;  // Weight(weight_time_)
  std::vector<Entry> entries_;
};

}  // namespace bullpen
