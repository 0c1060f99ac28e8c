#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/request.h"

namespace bullpen {

// Draws a token from `logits` [vocab]. Pure: the draw for output number `step`
// depends on the parameters, the logits and the two histories alone (a
// counter-based generator keyed by the seed), so neither the batch nor a
// preemption shows.
class Sampler {
 public:
  explicit Sampler(int32_t vocab);

  int32_t Sample(std::span<const float> logits, const SamplingParams& params,
                 std::span<const int32_t> prompt,
                 std::span<const int32_t> output, int64_t step);

  // log softmax of `id` and of the `top` likeliest (ties to the lowest id).
  TokenEvent Logprobs(std::span<const float> logits, int32_t id, int32_t top);

 private:
  std::vector<float> scratch_;
  std::vector<int32_t> order_;
};

}  // namespace bullpen
