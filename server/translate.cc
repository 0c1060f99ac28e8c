#include "server/translate.h"

#include <random>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "server/errors.h"

namespace bullpen {
namespace {

// An interval of allowed values, with its ends in or out.
struct Range {
  double low;
  double high;
  bool low_open = false;
  bool high_open = false;

  bool Contains(double value) const {
    return (low_open ? value > low : value >= low) &&
           (high_open ? value < high : value <= high);
  }
  std::string Words() const {
    return absl::StrCat(low_open ? "above " : "at least ", low, " and ",
                        high_open ? "below " : "at most ", high);
  }
};

constexpr Range kTemperature{.low = 0, .high = 10};
constexpr Range kTopP{.low = 0, .high = 1, .low_open = true};
constexpr Range kMinP{.low = 0, .high = 1, .high_open = true};
constexpr Range kRepetitionPenalty{.low = 0, .high = 10, .low_open = true};
constexpr Range kPenalty{.low = -2, .high = 2};
constexpr Range kLogitBias{.low = -100, .high = 100};

absl::Status CheckRange(std::string_view field, double value,
                        const Range& range) {
  if (range.Contains(value)) return absl::OkStatus();
  return FieldError(field, absl::StrCat(Absl(field), " must be ", range.Words(),
                                        ", got ", value));
}

absl::Status CheckOptional(std::string_view field,
                           const std::optional<float>& value,
                           const Range& range) {
  if (!value.has_value()) return absl::OkStatus();
  return CheckRange(field, *value, range);
}

absl::Status CheckCount(std::string_view field, size_t count, int32_t limit) {
  if (count <= static_cast<size_t>(limit)) return absl::OkStatus();
  return FieldError(
      field, absl::StrCat(Absl(field), " has ", count, " entries, at most ",
                          limit, " are allowed"));
}

absl::Status CheckId(std::string_view field, int64_t index, int32_t id,
                     int32_t vocab) {
  if (id >= 0 && id < vocab) return absl::OkStatus();
  return FieldError(field,
                    absl::StrCat(Absl(field), "[", index, "] is token id ", id,
                                 ", which is not in the vocabulary of ", vocab,
                                 " (0 to ", vocab - 1, ")"));
}

absl::Status CheckUtf8(std::string_view field, std::string_view text) {
  if (IsValidUtf8(text)) return absl::OkStatus();
  return FieldError(field, absl::StrCat(Absl(field), " is not valid UTF-8"));
}

absl::Status CheckStop(const GenerateParams& params, const ModelFacts& facts,
                       const RequestLimits& limits) {
  RETURN_IF_ERROR(
      CheckCount("stop", params.stop.size(), limits.max_stop_strings));
  for (size_t i = 0; i < params.stop.size(); ++i) {
    const std::string& stop = params.stop[i];
    if (stop.empty()) {
      return FieldError("stop", absl::StrCat("stop[", i, "] is empty"));
    }
    if (stop.size() > static_cast<size_t>(limits.max_stop_bytes)) {
      return FieldError(
          "stop",
          absl::StrCat("stop[", i, "] has ", stop.size(), " bytes, at most ",
                       limits.max_stop_bytes, " are allowed"));
    }
    RETURN_IF_ERROR(CheckUtf8("stop", stop));
  }
  RETURN_IF_ERROR(CheckCount("stop_token_ids", params.stop_token_ids.size(),
                             limits.max_stop_ids));
  return CheckIds("stop_token_ids", params.stop_token_ids, facts.vocab);
}

absl::Status CheckLogitBias(const GenerateParams& params,
                            const ModelFacts& facts,
                            const RequestLimits& limits) {
  RETURN_IF_ERROR(CheckCount("logit_bias", params.logit_bias.size(),
                             limits.max_logit_bias));
  for (size_t i = 0; i < params.logit_bias.size(); ++i) {
    const auto& [id, bias] = params.logit_bias[i];
    RETURN_IF_ERROR(
        CheckId("logit_bias", static_cast<int64_t>(i), id, facts.vocab));
    RETURN_IF_ERROR(CheckRange("logit_bias", bias, kLogitBias));
  }
  return absl::OkStatus();
}

absl::Status CheckSampling(const GenerateParams& params,
                           const ModelFacts& facts,
                           const RequestLimits& limits) {
  RETURN_IF_ERROR(
      CheckOptional("temperature", params.temperature, kTemperature));
  RETURN_IF_ERROR(CheckOptional("top_p", params.top_p, kTopP));
  RETURN_IF_ERROR(CheckOptional("min_p", params.min_p, kMinP));
  RETURN_IF_ERROR(CheckOptional("repetition_penalty", params.repetition_penalty,
                                kRepetitionPenalty));
  RETURN_IF_ERROR(
      CheckOptional("presence_penalty", params.presence_penalty, kPenalty));
  RETURN_IF_ERROR(
      CheckOptional("frequency_penalty", params.frequency_penalty, kPenalty));
  if (params.top_k.value_or(0) < -1) {
    return FieldError(
        "top_k", absl::StrCat("top_k must be at least 1, or 0 or -1 for off, "
                              "got ",
                              *params.top_k));
  }
  RETURN_IF_ERROR(CheckLogitBias(params, facts, limits));
  if (params.logprobs.has_value() &&
      (*params.logprobs < 0 || *params.logprobs > limits.max_logprobs)) {
    return FieldError(
        "logprobs",
        absl::StrCat("logprobs must be at least 0 and at most ",
                     limits.max_logprobs, ", got ", *params.logprobs));
  }
  return absl::OkStatus();
}

// A random seed that a JSON number keeps exactly.
uint64_t RandomSeed() {
  std::random_device device;
  const uint64_t high = device();
  return (high << 32 | device()) >> 11;
}

SamplingParams Sampling(const GenerateParams& params,
                        const GenerationDefaults& defaults) {
  SamplingParams sampling;
  const float default_temperature = defaults.do_sample.value_or(true)
                                        ? defaults.temperature.value_or(1.0f)
                                        : 0.0f;
  sampling.temperature = params.temperature.value_or(default_temperature);
  // Greedy decoding is exactly the argmax unless the request says otherwise.
  const GenerationDefaults none;
  const GenerationDefaults& from = sampling.temperature > 0 ? defaults : none;
  sampling.top_k = std::max(0, params.top_k.value_or(from.top_k.value_or(0)));
  sampling.top_p = params.top_p.value_or(from.top_p.value_or(1.0f));
  sampling.min_p = params.min_p.value_or(from.min_p.value_or(0.0f));
  sampling.repetition_penalty = params.repetition_penalty.value_or(
      from.repetition_penalty.value_or(1.0f));
  sampling.presence_penalty = params.presence_penalty.value_or(0.0f);
  sampling.frequency_penalty = params.frequency_penalty.value_or(0.0f);
  sampling.logit_bias = params.logit_bias;
  sampling.seed = params.seed.has_value() ? *params.seed : RandomSeed();
  return sampling;
}

absl::StatusOr<std::vector<int32_t>> PromptIds(const GenerateParams& params,
                                               const ModelFacts& facts,
                                               const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  if (const auto* text = std::get_if<std::string>(&params.prompt)) {
    RETURN_IF_ERROR(CheckUtf8("prompt", *text));
    ids = tokenizer.Encode(*text, params.add_special_tokens);
  } else {
    ids = std::get<std::vector<int32_t>>(params.prompt);
  }
  if (ids.empty()) {
    return FieldError("prompt", "prompt is empty; at least 1 token is needed");
  }
  RETURN_IF_ERROR(CheckIds("prompt", ids, facts.vocab));
  return ids;
}

// The number of tokens to generate, or the error of a request that does not
// fit the context, in the words that OpenAI's clients look for.
absl::StatusOr<int32_t> TokensToGenerate(const GenerateParams& params,
                                         int64_t prompt_tokens,
                                         int64_t context) {
  if (params.max_tokens.value_or(0) < 0) {
    return FieldError("max_tokens",
                      absl::StrCat("max_tokens must be at least 0, got ",
                                   *params.max_tokens));
  }
  const int64_t completion =
      params.max_tokens.has_value()
          ? *params.max_tokens
          : std::max<int64_t>(context - prompt_tokens, 1);
  if (prompt_tokens + completion <= context) {
    return static_cast<int32_t>(completion);
  }
  const bool prompt_alone = prompt_tokens >= context;
  return FieldError(
      prompt_alone ? "prompt" : "max_tokens",
      absl::StrCat("This model's maximum context length is ", context,
                   " tokens. However, you requested ",
                   prompt_tokens + completion, " tokens (", prompt_tokens,
                   " in the prompt, ", completion,
                   " in the completion). Please reduce the length of the ",
                   prompt_alone ? "prompt." : "prompt or of the completion."),
      "context_length_exceeded");
}

}  // namespace

absl::Status CheckIds(std::string_view field, std::span<const int32_t> ids,
                      int32_t vocab) {
  for (size_t i = 0; i < ids.size(); ++i) {
    RETURN_IF_ERROR(CheckId(field, static_cast<int64_t>(i), ids[i], vocab));
  }
  return absl::OkStatus();
}

absl::StatusOr<Request> ToRequest(const GenerateParams& params,
                                  const ModelFacts& facts,
                                  const RequestLimits& limits,
                                  const Tokenizer& tokenizer) {
  RETURN_IF_ERROR(CheckSampling(params, facts, limits));
  RETURN_IF_ERROR(CheckStop(params, facts, limits));
  Request request;
  ASSIGN_OR_RETURN(request.prompt, PromptIds(params, facts, tokenizer));
  ASSIGN_OR_RETURN(
      request.max_tokens,
      TokensToGenerate(params, static_cast<int64_t>(request.prompt.size()),
                       facts.context));
  request.sampling = Sampling(params, facts.generation);
  request.stop_ids = params.stop_token_ids;
  if (!params.ignore_eos) {
    request.stop_ids.insert(request.stop_ids.end(),
                            facts.generation.eos_ids.begin(),
                            facts.generation.eos_ids.end());
  }
  request.logprobs = params.logprobs;
  request.prompt_logprobs = params.echo && params.logprobs.has_value();
  request.deadline =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(
                         std::chrono::duration<double>(limits.max_seconds));
  return request;
}

}  // namespace bullpen
