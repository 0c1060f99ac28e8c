#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/experts/decayed_counts.h"
#include "engine/experts/successors.h"

namespace bullpen {

enum class PolicyKind : uint8_t {
  kCrf,     // decayed frequency and who follows whom: the live cache's kind
  kLru,     // least recently used
  kLfu,     // least often used
  kStatic,  // fixed scores from a profile
  kBelady,  // scores are set from the future: simulator only
};

// The rules that kCrf chooses among: decayed frequency with each of these
// half-lives in tokens, and then who is likeliest to be used by the next token
// (Successors). 0 is LRU, which wins when the topic changes often; the longest
// wins when habits last.
inline constexpr std::array<double, 2> kHalfLives = {0, 32};
inline constexpr size_t kRules = kHalfLives.size() + 1;

// A layer's step under each rule, and under the one that was chosen.
struct ShadowHits {
  std::array<int32_t, kRules> by_rule = {};
  int32_t chosen = 0;
  int32_t lookups = 0;
};

// Which rule would have hit most of late, over all layers of a cache that
// share this object. While the choices have lost more than 0.2 % of all
// lookups against LRU, another rule must lead it beyond chance. Pure; one
// thread.
class RuleChoice {
 public:
  // Of a step of one of so many layers.
  void Count(const ShadowHits& step, double layers);
  size_t best() const { return best_; }

 private:
  // Hits beyond LRU's: sums, and sums of squares, both decayed.
  std::array<double, kRules> leads_ = {};
  std::array<double, kRules> squares_ = {};
  int64_t lost_ = 0;  // of all lookups: LRU's hits less the choice's
  int64_t lookups_ = 0;
  size_t best_ = kRules - 1;
};

struct PolicyConfig {
  PolicyKind kind = PolicyKind::kCrf;
  // kCrf: of the decay, in tokens. 0: the rule is chosen on-line.
  double half_life_tokens = 0;
  // For a rule that is chosen: shared by `layers` layers, and outlives them.
  // Null: each layer chooses by itself.
  RuleChoice* choice = nullptr;
  int32_t layers = 1;
  // The layer may lose slots later: one that has a slot for each expert now
  // needs a rule too.
  bool slots_move = false;
};

// Which resident expert of a layer goes first: the one with the least score,
// ties to the least recently used (in the order of Use calls), then to the
// lowest index. The kinds differ in the score alone. kCrf: DecayedCounts with a
// fixed half-life, or the rule under which a shadow of this cache, ids without
// weights, hits most (RuleChoice). Scores outlive residency. Pure: no clock, no
// threads; the live cache and the trace simulator share it.
class EvictionPolicy {
 public:
  // For a layer of `slots` slots; where slots move, its fair share of them: the
  // shadows have as many.
  EvictionPolicy(int32_t experts, int32_t slots, const PolicyConfig& config);

  // `count` tokens used `expert` at time `now` (tokens seen by the layer),
  // which never goes back and moves from step to step.
  void Use(int32_t expert, int64_t now, double count = 1);
  // For kStatic and kBelady: larger stays longer.
  void SetScore(int32_t expert, double score);
  double Score(int32_t expert, int64_t now) const;
  // Grows from use to use; 0: never used.
  int64_t LastUse(int32_t expert) const { return last_[expert]; }
  // The time of its last use; 0: never used.
  int64_t LastUseTime(int32_t expert) const { return last_time_[expert]; }
  // The first to go among `candidates` (not empty).
  int32_t Victim(std::span<const int32_t> candidates) const;
  PolicyKind kind() const { return config_.kind; }
  // The rule at work: where it is chosen, another one means another order and
  // other scores.
  size_t rule() const;

 private:
  // What the slots would hold under one rule, or under the chosen ones.
  struct Shadow {
    std::vector<int32_t> held;  // in no order
    std::vector<bool> holds;    // by expert
  };
  bool chooses() const { return successors_.has_value(); }
  RuleChoice& choice() {
    return config_.choice != nullptr ? *config_.choice : own_choice_;
  }
  double Order(int32_t expert, size_t rule) const;
  bool GoesBefore(int32_t a, int32_t b, size_t rule) const;
  bool IsOlder(int32_t a, int32_t b) const;
  void EndStep();
  int32_t RunShadow(Shadow& shadow, size_t rule);

  PolicyConfig config_;
  size_t slots_;
  int64_t uses_ = 0;
  std::vector<int64_t> last_;          // by expert: its last use; 0: never
  std::vector<int64_t> last_time_;     // by expert: when that was
  std::vector<double> scores_;         // by expert: kLfu, kStatic, kBelady
  std::vector<DecayedCounts> counts_;  // kCrf: one per half-life
  // If the rule is chosen; one shadow for each, and the last for the choice.
  std::optional<Successors> successors_;
  std::vector<Shadow> shadows_;
  RuleChoice own_choice_;
  // Of the step that runs.
  int64_t step_time_ = -1;
  int64_t step_start_ = 0;  // uses_ before it
};

}  // namespace bullpen
