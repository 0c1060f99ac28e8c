#include "bench/engine/steps.h"

#include <algorithm>
#include <limits>

namespace bullpen::bench {
namespace {

// A few milliseconds: shorter than the turns that the scheduler gives.
constexpr int32_t kWindowTokens = 16;

double Seconds(Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

std::vector<int32_t> PromptIds(const Workload& workload, int32_t index,
                               int32_t vocab) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < workload.prompt_tokens; ++i) {
    ids.push_back((i * 97 + index * 31 + 11) % vocab);
  }
  return ids;
}

Best BestOf(const std::vector<Steps>& repeats, int32_t batch) {
  double first = std::numeric_limits<double>::infinity();
  double window = std::numeric_limits<double>::infinity();
  const int32_t steps = (kWindowTokens + batch - 1) / batch;
  const size_t width = static_cast<size_t>(steps) * batch;
  for (const Steps& repeat : repeats) {
    first = std::min(first, Seconds(repeat.tokens.front() - repeat.begin));
    // The first token of each sequence belongs to its prompt.
    for (size_t i = batch; i + width < repeat.tokens.size(); i += batch) {
      window = std::min(window,
                        Seconds(repeat.tokens[i + width] - repeat.tokens[i]));
    }
  }
  return {.first_token_ms = 1e3 * first,
          .tokens_per_second = static_cast<double>(width) / window,
          .step_us = 1e6 * window / steps};
}

}  // namespace bullpen::bench
