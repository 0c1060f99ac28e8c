#include "engine/experts/evidence.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/strings.h"
#include "engine/experts/log_odds.h"

namespace bullpen {
namespace {

// Adagrad's step, and a prior that keeps the first ones small. A gradient is
// the sum over a layer's experts.
constexpr float kRate = 0.1f;
constexpr float kFirstSquares = 1.0f;

constexpr int32_t kBias = kEvidenceKinds;

}  // namespace

const char* Name(Evidence evidence) {
  switch (evidence) {
    case Evidence::kPath:
      return "path";
    case Evidence::kPopularity:
      return "popularity";
    case Evidence::kRecent:
      return "recent";
    case Evidence::kRequest:
      return "request";
    case Evidence::kRouter:
      return "router";
    case Evidence::kToken:
      return "token";
  }
  CHECK(false) << static_cast<int>(evidence);
  return "";
}

absl::StatusOr<EvidenceSet> ParseEvidence(std::string_view names) {
  if (names == "all") return kAllEvidence;
  EvidenceSet set = 0;
  for (const absl::string_view name : absl::StrSplit(Absl(names), ',')) {
    const auto* const found = std::ranges::find_if(
        kAllEvidenceKinds, [&](Evidence kind) { return name == Name(kind); });
    if (found == std::end(kAllEvidenceKinds)) {
      return absl::InvalidArgumentError(
          absl::StrCat("predictor '", name, "' is not one of all, ",
                       absl::StrJoin(kAllEvidenceKinds, ", ",
                                     [](std::string* out, Evidence kind) {
                                       absl::StrAppend(out, Name(kind));
                                     })));
    }
    set |= Bit(*found);
  }
  return set;
}

// Before anything is learnt, kinds count alike; what is known of the token
// itself already contains how popular an expert is.
EvidenceWeights::EvidenceWeights(int32_t experts_max)
    : by_set_(kAllEvidence + 1), errors_(static_cast<size_t>(experts_max)) {
  for (EvidenceSet set = 1; set <= kAllEvidence; ++set) {
    const float each = 1 / static_cast<float>(__builtin_popcount(set));
    for (int32_t i = 0; i < kEvidenceKinds; ++i) {
      Weights& weights = by_set_[set];
      weights.value[i] = (set >> i & 1) == 1 ? each : 0;
      weights.squares[i] = kFirstSquares;
    }
    by_set_[set].squares[kBias] = kFirstSquares;
  }
}

void EvidenceWeights::Combine(const EvidenceRow& row,
                              std::span<float> out) const {
  const Weights& weights = by_set_[row.present];
  float* const z = out.data();
  if (row.present == 0) {
    std::fill_n(z, row.experts, -kMaxLogOdds);
    return;
  }
  for (int32_t e = 0; e < row.experts; ++e) z[e] = weights.value[kBias];
  for (int32_t i = 0; i < kEvidenceKinds; ++i) {
    if ((row.present >> i & 1) == 0) continue;
    const float weight = weights.value[i];
    const float* const odds = row.log_odds[i];
    for (int32_t e = 0; e < row.experts; ++e) z[e] += weight * odds[e];
  }
}

void EvidenceWeights::Learn(const EvidenceRow& row,
                            std::span<const float> combined,
                            std::span<const float> used) {
  float* const error = errors_.data();
  float sum = 0;
  for (int32_t e = 0; e < row.experts; ++e) {
    error[e] = used[e] - Probability(combined[e]);
    sum += error[e];
  }
  Weights& weights = by_set_[row.present];
  Move(weights, kBias, sum);
  for (int32_t i = 0; i < kEvidenceKinds; ++i) {
    if ((row.present >> i & 1) == 0) continue;
    const float* const odds = row.log_odds[i];
    float gradient = 0;
    for (int32_t e = 0; e < row.experts; ++e) gradient += error[e] * odds[e];
    Move(weights, i, gradient);
  }
}

void EvidenceWeights::Move(Weights& weights, int32_t index, float gradient) {
  float& squares = weights.squares[index];
  squares += gradient * gradient;
  weights.value[index] += kRate * gradient / std::sqrt(squares);
}

}  // namespace bullpen
