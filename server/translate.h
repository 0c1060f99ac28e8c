#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/config.h"
#include "engine/model/tokenizer.h"
#include "engine/request.h"

namespace bullpen {

// The limits on one request, as the operator set them.
struct RequestLimits {
  int32_t max_n = 8;
  int32_t max_prompts = 32;  // of one completions call
  int32_t max_stop_strings = 16;
  int32_t max_stop_bytes = 1024;  // of one stop string
  int32_t max_stop_ids = 64;
  int32_t max_logprobs = 20;
  int32_t max_logit_bias = 1024;
  int64_t max_body_bytes = int64_t{8} << 20;
  int32_t max_json_depth = 64;
  int32_t max_json_parts = 1 << 18;  // objects, lists and fields of a body
  int64_t max_logprobs_in_all = int64_t{1} << 22;  // of all choices of a call
  int32_t max_messages = 16384;
  int32_t max_choices = 256;  // of all prompts; the queue never holds more
  double max_seconds = 3600;  // deadline of every request
};

// One generation in wire-neutral form: what JSON and protobuf both become.
// Unset fields take the model's generation defaults.
struct GenerateParams {
  std::variant<std::string, std::vector<int32_t>> prompt;
  bool add_special_tokens = true;  // false: a rendered chat template
  std::optional<float> temperature, top_p, min_p;
  std::optional<int32_t> top_k;
  std::optional<float> repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<uint64_t> seed;
  std::vector<std::pair<int32_t, float>> logit_bias;
  std::optional<int32_t> max_tokens;  // unset: to the context's end
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  std::optional<int32_t> logprobs;
  bool echo = false;
};

// What the front ends need to know of the served model.
struct ModelFacts {
  std::string id;
  std::string architecture;  // its model_type
  int32_t layers = 0;
  int32_t experts = 0;  // per MoE layer; 0 = dense
  int32_t experts_per_token = 0;
  int32_t vocab = 0;
  int32_t context = 0;
  GenerationDefaults generation;
};

// FieldError unless all `ids` are in the vocabulary.
absl::Status CheckIds(std::string_view field, std::span<const int32_t> ids,
                      int32_t vocab);

// All checks on what a request asks for, whatever wire it came over. Messages
// name the field, the value and the limit (FieldError). A prompt over the
// context has code context_length_exceeded and the words "This model's maximum
// context length is N tokens". Temperature 0 is plain greedy: the model's
// default penalties and filters apply to sampled decoding only, unless the
// request itself asks for them.
absl::StatusOr<Request> ToRequest(const GenerateParams& params,
                                  const ModelFacts& facts,
                                  const RequestLimits& limits,
                                  const Tokenizer& tokenizer);

}  // namespace bullpen
