#pragma once

#include <cstdint>
#include <vector>

#include "engine/request.h"

namespace bullpen::bench {

// What to run: `batch` sequences of the same lengths at a time.
struct Workload {
  int32_t batch = 1;
  int32_t prompt_tokens = 64;
  int32_t decode_tokens = 128;
  int32_t repeats = 20;
};

// The ids of sequence `index`; they are spread over the vocabulary.
std::vector<int32_t> PromptIds(const Workload& workload, int32_t index,
                               int32_t vocab);

// Times of one repeat.
struct Steps {
  Clock::time_point begin;
  std::vector<Clock::time_point> tokens;  // when each came, in order
};

// The best of all repeats and of all windows in them: the machine's other work
// only ever adds time.
struct Best {
  double first_token_ms = 0;
  double tokens_per_second = 0;  // of decoding, over some 16 tokens
  double step_us = 0;            // one step of the whole batch
};
Best BestOf(const std::vector<Steps>& repeats, int32_t batch);

}  // namespace bullpen::bench
