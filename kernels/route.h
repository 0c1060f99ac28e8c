#pragma once

#include <cstdint>

namespace bullpen::kernels {

// How a family turns router logits into experts and weights. Shared by the
// forward pass and the predictor.
struct RouterRule {
  // kSparseMixer: arXiv 2409.12136, as in Phi-3.5-MoE.
  enum class Score : uint8_t {
    kSoftmax,
    kSigmoid,
    kSoftmaxOverChosen,
    kSparseMixer
  };
  Score score = Score::kSoftmax;
  bool renormalise = false;  // weights /= max(their sum, norm_least) + norm_eps
  float norm_least = 0.0f;
  float norm_eps = 0.0f;
  float scaling = 1.0f;  // multiplies the weights last
  float jitter = 0.0f;   // of the sparse mixer
  int32_t groups = 1;    // group-limited choice; 1 = off
  int32_t groups_kept = 1;
  // A group's score: the largest choice score in it, or the sum of its two
  // largest (DeepSeek-V3).
  bool group_score_top2 = false;
};

// experts[t] = the k experts with the largest choice score (score + bias),
// descending, ties to the lowest index; weights[t] = their scores, normalised
// and scaled by the rule. Softmax: m = max, e = Exp(l - m), z = eight partial
// sums over i % 8 and the tree of rms_norm.h, score = e / z; over the chosen:
// the same, with i the rank. Sigmoid: 1 / (1 + Exp(-l)). Sparse mixer: an
// expert chosen with the logit c has its share of the softmax over those not
// chosen before it, without those for which (c - l) / max(|l|, c) > 2 * jitter
// (they count as -inf). Renormalised weights are divided by (their sum in rank
// order, or norm_least if that is larger, + norm_eps).
// A NaN logit counts as -inf, and so does a choice or group score that is:
// whatever the logits are, the chosen experts are distinct and in range; their
// weights may be NaN (all logits -inf, or one +inf).
struct RouteArgs {
  const float* logits = nullptr;       // [tokens, experts]
  const float* choice_bias = nullptr;  // [experts] or null; for the choice only
  int32_t tokens = 0;
  int32_t experts = 0;  // <= 1024
  int32_t k = 0;        // <= 32
  RouterRule rule = {};
  int32_t* chosen = nullptr;  // [tokens, k]
  float* weights = nullptr;   // [tokens, k]
};

// CHECKs the limits above, and that the kept groups hold at least k experts.
void CheckRoute(const RouteArgs& args);

}  // namespace bullpen::kernels
