#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/math_simd.h"
#include "kernels/parallel.h"
#include "kernels/top_k_simd.h"

namespace bullpen::kernels {
namespace {

inline constexpr int kMaxExperts = 1024;

// Takes all experts of the groups that are not kept.
template <typename V>
void LimitGroups(const RouteArgs& args, float* choice) {
  const int groups = args.rule.groups;
  const int size = args.experts / groups;
  alignas(64) float score[kMaxExperts];
  for (int g = 0; g < (groups + 15) / 16 * 16; ++g) score[g] = kTaken;
  for (int g = 0; g < groups; ++g) {
    float first = kMinusInfinity, second = kMinusInfinity;
    for (int e = g * size; e < (g + 1) * size; ++e) {
      second = std::max(second, std::min(first, choice[e]));
      first = std::max(first, choice[e]);
    }
    const float sum =
        args.rule.group_score_top2 && size > 1 ? first + second : first;
    score[g] = sum == sum ? sum : kMinusInfinity;
  }
  bool kept[kMaxExperts] = {};
  for (int i = 0; i < args.rule.groups_kept; ++i) {
    kept[TakeLargest<V>(score, (groups + 15) / 16 * 16)] = true;
  }
  for (int e = 0; e < args.experts; ++e) {
    if (!kept[e / size]) choice[e] = kTaken;
  }
}

// The weight of `chosen`; what was taken from `choice` before it no longer
// counts.
template <typename V>
float SparseMixerWeight(const RouteArgs& args, const float* logits,
                        const float* choice, int chosen) {
  alignas(64) float share[kMaxExperts];
  const float c = logits[chosen];
  for (int e = 0; e < args.experts; ++e) {
    const float l = logits[e];
    const float gap = (c - l) / std::max(std::abs(l), c);
    const bool earlier = choice[e] != choice[e] && e != chosen;
    const bool out = earlier || gap > 2.0f * args.rule.jitter;
    share[e] = out ? kMinusInfinity : l;
  }
  Softmax<V>(share, args.experts);
  return share[chosen];
}

template <typename V>
void Weigh(const RouterRule& rule, int k, float* weights) {
  if (rule.score == RouterRule::Score::kSoftmaxOverChosen) {
    alignas(64) float chosen[32] = {};
    std::copy(weights, weights + k, chosen);
    Softmax<V>(chosen, k);
    std::copy(chosen, chosen + k, weights);
  }
  if (rule.renormalise) {
    float sum = 0.0f;
    for (int r = 0; r < k; ++r) sum += weights[r];
    const float whole = std::max(sum, rule.norm_least) + rule.norm_eps;
    for (int r = 0; r < k; ++r) weights[r] /= whole;
  }
  for (int r = 0; r < k; ++r) weights[r] *= rule.scaling;
}

// The scores of one token, and what its choice is made by.
template <typename V>
void Scores(const RouteArgs& args, const float* logits, float* score,
            float* choice) {
  using F = typename V::F;
  const F lowest = V::Set(kMinusInfinity);
  for (int e = 0; e < args.experts; e += 16) {
    const int n = std::min(args.experts - e, 16);
    // Max gives its second operand where the first is NaN.
    F a = V::Max(LoadLanes<V>(logits + e, n), lowest);
    if (args.rule.score == RouterRule::Score::kSigmoid) {
      const F one = V::Set(1.0f);
      a = V::Div(one, V::Add(one, ExpLanes<V>(V::Negate(a))));
    }
    V::Store(score + e, a);
  }
  if (args.rule.score == RouterRule::Score::kSoftmax) {
    Softmax<V>(score, args.experts);
  }
  for (int e = 0; e < args.experts; e += 16) {
    const int n = std::min(args.experts - e, 16);
    F a = V::Load(score + e);
    if (args.choice_bias != nullptr) {
      a = V::Add(a, LoadLanes<V>(args.choice_bias + e, n));
    }
    V::Store(choice + e, V::Keep(V::Max(a, lowest), 0, n, V::Set(kTaken)));
  }
}

template <typename V>
void RouteToken(const RouteArgs& args, int64_t token) {
  alignas(64) float score[kMaxExperts];
  alignas(64) float choice[kMaxExperts];
  Scores<V>(args, args.logits + token * args.experts, score, choice);
  if (args.rule.groups > 1) LimitGroups<V>(args, choice);
  int32_t* chosen = args.chosen + token * args.k;
  float* weights = args.weights + token * args.k;
  for (int r = 0; r < args.k; ++r) {
    chosen[r] = TakeLargest<V>(choice, (args.experts + 15) / 16 * 16);
    weights[r] = args.rule.score == RouterRule::Score::kSparseMixer
                     ? SparseMixerWeight<V>(args, score, choice, chosen[r])
                     : score[chosen[r]];
  }
  Weigh<V>(args.rule, args.k, weights);
}

template <typename V>
absl::Status Route(const RouteArgs& args, Stream& stream) {
  CheckRoute(args);
  const int64_t work = int64_t{args.experts} * (4 + args.k);
  ForParts(stream, args.tokens, work, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) RouteToken<V>(args, t);
  });
  return absl::OkStatus();
}

}  // namespace
}  // namespace bullpen::kernels
