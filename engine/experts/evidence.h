#pragma once

#include <array>
#include <cstdint>
#include <iterator>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bullpen {

// What an estimate of the experts to come is based on.
enum class Evidence : uint8_t {
  kPath,        // conditional tables, from what this token used before
  kPopularity,  // decayed use, over a long half-life
  kRecent,      // the same over a short one
  kRequest,     // what requests like this one used
  kRouter,      // the layer's router, applied early
  kToken,       // what tokens of the same id used
};
inline constexpr Evidence kAllEvidenceKinds[] = {
    Evidence::kPath,    Evidence::kPopularity, Evidence::kRecent,
    Evidence::kRequest, Evidence::kRouter,     Evidence::kToken};
inline constexpr int32_t kEvidenceKinds = std::ssize(kAllEvidenceKinds);
const char* Name(Evidence evidence);

// The kinds that are at hand, one bit each.
using EvidenceSet = uint32_t;
constexpr EvidenceSet Bit(Evidence evidence) {
  return EvidenceSet{1} << static_cast<uint32_t>(evidence);
}
inline constexpr EvidenceSet kAllEvidence =
    (EvidenceSet{1} << kEvidenceKinds) - 1;

// "all", or names with commas between. InvalidArgument lists them.
absl::StatusOr<EvidenceSet> ParseEvidence(std::string_view names);

// Guesses of one kind for one token, at the least probability of a guess.
struct GuessCounts {
  uint64_t guessed = 0;
  uint64_t right = 0;  // of the guessed
  uint64_t used = 0;   // by the token: right and not guessed
  double precision() const {
    return guessed == 0 ? 0 : static_cast<double>(right) / guessed;
  }
  double recall() const {
    return used == 0 ? 0 : static_cast<double>(right) / used;
  }
};

// For one token and layer: per expert the log-odds by each kind that is in
// `present`, side by side in the caller's memory.
struct EvidenceRow {
  EvidenceSet present = 0;
  std::array<const float*, kEvidenceKinds> log_odds = {};
  int32_t experts = 0;
};

// Weighs kinds of evidence against each other by logistic regression, learnt
// on-line (Adagrad), apart for each set of kinds that is at hand: so the sum
// stays calibrated when a predictor is missing or turns bad. Pure; one thread.
class EvidenceWeights {
 public:
  // No row has more than `experts_max` experts.
  explicit EvidenceWeights(int32_t experts_max);

  // out[e] = the log-odds that the token uses expert e; without any evidence
  // as low as they can be.
  void Combine(const EvidenceRow& row, std::span<float> out) const;
  // `used[e]` is 1 where it did, else 0; `combined` is what Combine gave.
  void Learn(const EvidenceRow& row, std::span<const float> combined,
             std::span<const float> used);

 private:
  // The bias comes last.
  struct Weights {
    std::array<float, kEvidenceKinds + 1> value = {};
    std::array<float, kEvidenceKinds + 1> squares = {};  // of past gradients
  };
  void Move(Weights& weights, int32_t index, float gradient);

  std::vector<Weights> by_set_;
  std::vector<float> errors_;  // scratch
};

}  // namespace bullpen
