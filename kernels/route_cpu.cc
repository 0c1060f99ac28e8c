#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/exp.h"
#include "kernels/oracle.h"

namespace bullpen::kernels::oracle {
namespace {

constexpr int kMaxExperts = 1024;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// In place.
void Softmax(float* values, int count) {
  const float m = *std::max_element(values, values + count);
  float p[8] = {};
  for (int i = 0; i < count; ++i) {
    values[i] = Exp(values[i] - m);
    p[i % 8] += values[i];
  }
  const float z =
      ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
  for (int i = 0; i < count; ++i) values[i] /= z;
}

// The largest, and the sum of the two largest if `top2`.
float GroupScore(const float* choice, int count, bool top2) {
  float first = -kInfinity;
  float second = -kInfinity;
  for (int i = 0; i < count; ++i) {
    second = std::max(second, std::min(first, choice[i]));
    first = std::max(first, choice[i]);
  }
  const float score = top2 && count > 1 ? first + second : first;
  return std::isnan(score) ? -kInfinity : score;
}

// Takes the largest that is not taken yet, the lowest index of equals.
int TakeLargest(const float* values, bool* taken, int count) {
  int best = -1;
  for (int i = 0; i < count; ++i) {
    if (!taken[i] && (best < 0 || values[i] > values[best])) best = i;
  }
  taken[best] = true;
  return best;
}

// Marks the experts of the groups that are not kept as taken.
void LimitGroups(const RouteArgs& args, const float* choice, bool* taken) {
  const int size = args.experts / args.rule.groups;
  float score[kMaxExperts];
  bool kept[kMaxExperts] = {};
  for (int g = 0; g < args.rule.groups; ++g) {
    score[g] = GroupScore(choice + g * size, size, args.rule.group_score_top2);
  }
  for (int i = 0; i < args.rule.groups_kept; ++i) {
    TakeLargest(score, kept, args.rule.groups);
  }
  for (int e = 0; e < args.experts; ++e) taken[e] = !kept[e / size];
}

// The weight of `chosen`; `earlier` marks those that no longer count.
float SparseMixerWeight(const RouteArgs& args, const float* logits,
                        const bool* earlier, int chosen) {
  const float c = logits[chosen];
  float share[kMaxExperts];
  for (int e = 0; e < args.experts; ++e) {
    const float gap = (c - logits[e]) / std::max(std::abs(logits[e]), c);
    const bool out = earlier[e] || gap > 2.0f * args.rule.jitter;
    share[e] = out ? -kInfinity : logits[e];
  }
  Softmax(share, args.experts);
  return share[chosen];
}

void Weigh(const RouterRule& rule, int k, float* weights) {
  if (rule.score == RouterRule::Score::kSoftmaxOverChosen) Softmax(weights, k);
  if (rule.renormalise) {
    float sum = 0.0f;
    for (int r = 0; r < k; ++r) sum += weights[r];
    const float whole = std::max(sum, rule.norm_least) + rule.norm_eps;
    for (int r = 0; r < k; ++r) weights[r] /= whole;
  }
  for (int r = 0; r < k; ++r) weights[r] *= rule.scaling;
}

}  // namespace

absl::Status Route(const RouteArgs& args, Stream&) {
  CheckRoute(args);
  for (int64_t t = 0; t < args.tokens; ++t) {
    const float* logits = args.logits + t * args.experts;
    float score[kMaxExperts];
    float choice[kMaxExperts];
    bool taken[kMaxExperts] = {};
    for (int e = 0; e < args.experts; ++e) {
      score[e] = std::isnan(logits[e]) ? -kInfinity : logits[e];
    }
    if (args.rule.score == RouterRule::Score::kSoftmax) {
      Softmax(score, args.experts);
    } else if (args.rule.score == RouterRule::Score::kSigmoid) {
      for (int e = 0; e < args.experts; ++e) {
        score[e] = 1.0f / (1.0f + Exp(-score[e]));
      }
    }
    for (int e = 0; e < args.experts; ++e) {
      choice[e] = args.choice_bias != nullptr ? score[e] + args.choice_bias[e]
                                              : score[e];
      if (std::isnan(choice[e])) choice[e] = -kInfinity;
    }
    if (args.rule.groups > 1) LimitGroups(args, choice, taken);
    int32_t* chosen = args.chosen + t * args.k;
    float* weights = args.weights + t * args.k;
    for (int r = 0; r < args.k; ++r) {
      bool earlier[kMaxExperts];
      std::copy(taken, taken + args.experts, earlier);
      chosen[r] = TakeLargest(choice, taken, args.experts);
      weights[r] = args.rule.score == RouterRule::Score::kSparseMixer
                       ? SparseMixerWeight(args, score, earlier, chosen[r])
                       : score[chosen[r]];
    }
    Weigh(args.rule, args.k, weights);
  }
  return absl::OkStatus();
}

}  // namespace bullpen::kernels::oracle
