#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "engine/request.h"
#include "engine/softmax.h"
#include "engine/top_selector.h"

namespace bullpen {

// Internal unless `logit`, that of the token at `position` of its sequence, is
// finite: a model whose weights hold NaN, or lead to values beyond its formats,
// would go on with one token for ever.
absl::Status CheckLogit(float logit, size_t position);

// Draws a token from `logits` [vocab]. Pure: the draw for output number `step`
// depends on the parameters, the logits and the two histories alone (a
// counter-based generator keyed by the seed), so neither the batch nor a
// preemption shows. A NaN logit is never drawn while another is not NaN.
class Sampler {
 public:
  explicit Sampler(int32_t vocab);

  int32_t Sample(std::span<const float> logits, const SamplingParams& params,
                 std::span<const int32_t> prompt,
                 std::span<const int32_t> output, int64_t step);

  // log softmax of `id` and of the `top` likeliest (ties to the lowest id).
  TokenEvent Logprobs(std::span<const float> logits, int32_t id, int32_t top);

 private:
  std::span<const float> Adjust(std::span<const float> logits,
                                const SamplingParams& params,
                                std::span<const int32_t> prompt,
                                std::span<const int32_t> output);
  void PenaliseRepetition(float penalty, std::span<const int32_t> prompt,
                          std::span<const int32_t> output);
  void PenaliseOutput(const SamplingParams& params,
                      std::span<const int32_t> output);
  int32_t DrawFromTop(std::span<const float> scores, float max,
                      const SamplingParams& params, double uniform);

  std::vector<float> adjusted_;  // logits after bias and penalties
  std::vector<int32_t> counts_;  // per id; all 0 between calls
  std::vector<float> chosen_;    // terms of the candidates, descending
  SoftmaxTerms terms_;
  TopSelector selector_;
};

}  // namespace bullpen
