#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace bullpen {

using Clock = std::chrono::steady_clock;

// How the next token is drawn. temperature 0 is greedy: the largest logit,
// ties to the lowest id. Order: penalties, temperature, top_k, top_p, min_p.
struct SamplingParams {
  float temperature = 1.0f;         // [0, 10]
  int32_t top_k = 0;                // 0 = off
  float top_p = 1.0f;               // (0, 1]
  float min_p = 0.0f;               // [0, 1)
  uint64_t seed = 0;                // the same seed gives the same tokens
  float repetition_penalty = 1.0f;  // over prompt and output; 1 = off
  float presence_penalty = 0.0f;    // over the output
  float frequency_penalty = 0.0f;
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // added first
};

// One piece of work, already checked (server/translate.cc): ids are in the
// vocabulary, prompt + max_tokens fit the context.
struct Request {
  std::string id = {};               // for logs
  std::vector<int32_t> prompt = {};  // >= 1 token
  SamplingParams sampling = {};
  int32_t max_tokens = 16;  // >= 0; 0 computes the prompt only
  // End of sequence among them; these end the output and are not given out.
  std::vector<int32_t> stop_ids = {};
  std::optional<int32_t> logprobs = {};  // top-n per token; unset = none at all
  bool prompt_logprobs = false;          // also for prompt tokens (echo)
  std::optional<Clock::time_point> deadline = {};
};

// What the callers' checks promise: at most `longest` tokens in all, each of
// the vocabulary. A request that breaks it could never run, and would hold up
// all those behind it.
absl::Status CheckFits(const Request& request, int32_t longest, int32_t vocab);

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;
};

struct TokenEvent {
  int32_t id = 0;
  std::optional<float> logprob = {};   // of the unmodified distribution
  std::vector<TokenLogprob> top = {};  // descending
};

enum class FinishReason : uint8_t { kStop, kLength, kError };

// The one terminal event of a request.
struct Finished {
  FinishReason reason = FinishReason::kError;
  // OK, Cancelled, DeadlineExceeded, DataLoss, Unavailable ...
  absl::Status status = {};
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;        // a stop id that ended it is counted
  std::optional<int32_t> stop_id = {};  // which one
  double queue_seconds = 0;
  double first_token_seconds = 0;  // since Submit; 0 = none came
  double total_seconds = 0;
};

}  // namespace bullpen
