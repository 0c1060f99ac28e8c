#include "engine/sampler.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace bullpen {
namespace {

uint64_t Mix(uint64_t x) {  // splitmix64's finaliser
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// In [0, 1): output number `step` of the splitmix64 generator that starts from
// the mixed seed.
double Uniform(uint64_t seed, int64_t step) {
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;
  const uint64_t counter = static_cast<uint64_t>(step) + 1;
  const uint64_t bits = Mix(Mix(seed + kGolden) + counter * kGolden);
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

bool ChangesLogits(const SamplingParams& params) {
  return !params.logit_bias.empty() || params.repetition_penalty != 1.0f ||
         params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f;
}

// How many of the leading `terms` (descending) are kept: the fewest that reach
// top_p of `total`, of those not below min_p. At least one.
size_t KeptByMass(std::span<const float> terms, double total,
                  const SamplingParams& params) {
  const double mass = params.top_p * total;
  double sum = 0;
  size_t kept = 0;
  while (kept < terms.size() && (kept == 0 || sum < mass)) {
    if (kept > 0 && terms[kept] < params.min_p) break;
    sum += terms[kept++];
  }
  return kept;
}

size_t DrawIndex(std::span<const float> terms, double uniform) {
  double sum = 0;
  for (float term : terms) sum += term;
  double target = uniform * sum;
  size_t index = 0;
  while (index + 1 < terms.size()) {
    target -= terms[index];
    if (target < 0) break;
    ++index;
  }
  while (index > 0 && terms[index] == 0) --index;
  return index;
}

}  // namespace

absl::Status CheckLogit(float logit, size_t position) {
  if (std::isfinite(logit)) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(
      "the model computed the logit ", logit, " for the token at position ",
      position,
      ": its weights hold NaN, or lead to numbers beyond its formats"));
}

Sampler::Sampler(int32_t vocab) : counts_(vocab, 0) {
  adjusted_.reserve(vocab);
}

int32_t Sampler::Sample(std::span<const float> logits,
                        const SamplingParams& params,
                        std::span<const int32_t> prompt,
                        std::span<const int32_t> output, int64_t step) {
  CHECK(logits.size() == counts_.size());
  const std::span<const float> scores =
      ChangesLogits(params) ? Adjust(logits, params, prompt, output) : logits;
  if (params.temperature == 0.0f) return ArgMax(scores);
  const float max = MaxOf(scores);
  if (!std::isfinite(max)) return ArgMax(scores);

  const double uniform = Uniform(params.seed, step);
  const int32_t vocab = static_cast<int32_t>(scores.size());
  if (params.top_k > 0 && params.top_k < vocab) {
    return DrawFromTop(scores, max, params, uniform);
  }
  // Nothing else needs an order: every id stands in its own place.
  terms_.Compute(scores, max, params.temperature);
  if (params.top_p < 1.0f) terms_.KeepNucleus(params.top_p * terms_.total());
  if (params.min_p > 0.0f) terms_.DropBelow(params.min_p);
  return terms_.Find(uniform * terms_.total());
}

int32_t Sampler::DrawFromTop(std::span<const float> scores, float max,
                             const SamplingParams& params, double uniform) {
  const std::span<const int32_t> ids = selector_.Select(scores, params.top_k);
  chosen_.clear();
  double total = 0;
  for (int32_t id : ids) {
    chosen_.push_back(SoftmaxTerm(scores[id], max, params.temperature));
    total += chosen_.back();
  }
  std::span<const float> terms(chosen_);
  terms = terms.first(KeptByMass(terms, total, params));
  return ids[DrawIndex(terms, uniform)];
}

std::span<const float> Sampler::Adjust(std::span<const float> logits,
                                       const SamplingParams& params,
                                       std::span<const int32_t> prompt,
                                       std::span<const int32_t> output) {
  adjusted_.assign(logits.begin(), logits.end());
  for (const auto& [id, bias] : params.logit_bias) adjusted_[id] += bias;
  if (params.repetition_penalty != 1.0f) {
    PenaliseRepetition(params.repetition_penalty, prompt, output);
  }
  if (params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f) {
    PenaliseOutput(params, output);
  }
  return adjusted_;
}

void Sampler::PenaliseRepetition(float penalty, std::span<const int32_t> prompt,
                                 std::span<const int32_t> output) {
  for (const std::span<const int32_t> history : {prompt, output}) {
    for (int32_t id : history) {
      if (counts_[id]++ > 0) continue;
      float& logit = adjusted_[id];
      logit = logit > 0 ? logit / penalty : logit * penalty;
    }
  }
  for (const std::span<const int32_t> history : {prompt, output}) {
    for (int32_t id : history) counts_[id] = 0;
  }
}

void Sampler::PenaliseOutput(const SamplingParams& params,
                             std::span<const int32_t> output) {
  for (int32_t id : output) ++counts_[id];
  for (int32_t id : output) {
    if (counts_[id] == 0) continue;
    adjusted_[id] -= params.presence_penalty +
                     params.frequency_penalty * static_cast<float>(counts_[id]);
    counts_[id] = 0;
  }
}

TokenEvent Sampler::Logprobs(std::span<const float> logits, int32_t id,
                             int32_t top) {
  const float max = MaxOf(logits);
  const double log_total = std::log(SoftmaxTotal(logits, max));
  const auto logprob = [&](int32_t token) {
    return static_cast<float>(static_cast<double>(logits[token]) - max -
                              log_total);
  };
  TokenEvent event{.id = id, .logprob = logprob(id)};
  const std::span<const int32_t> ids = selector_.Select(logits, top);
  event.top.reserve(ids.size());
  for (int32_t token : ids) event.top.push_back({token, logprob(token)});
  return event;
}

}  // namespace bullpen
