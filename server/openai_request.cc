#include "server/openai_request.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "server/errors.h"
#include "server/openai_json.h"
#include "server/openai_messages.h"

namespace bullpen {
namespace {

using json = nlohmann::ordered_json;

// OpenAI's default for /v1/completions.
constexpr int32_t kCompletionTokens = 16;

void ReadStop(BodyFields& fields, GenerateParams& params) {
  const json* stop = fields.Any("stop");
  if (stop == nullptr) return;
  if (stop->is_string()) {
    params.stop.push_back(stop->get<std::string>());
    return;
  }
  if (!stop->is_array()) {
    return fields.Fail("stop", absl::StrCat("must be a string or a list of "
                                            "strings, got ",
                                            ShortJson(*stop)));
  }
  for (const json& text : *stop) {
    if (!text.is_string()) {
      return fields.Fail("stop", absl::StrCat("must be a list of strings, has ",
                                              ShortJson(text)));
    }
    params.stop.push_back(text.get<std::string>());
  }
}

void ReadLogitBias(BodyFields& fields, GenerateParams& params) {
  const json* biases = fields.Any("logit_bias");
  if (biases == nullptr) return;
  if (!biases->is_object()) {
    return fields.Fail("logit_bias",
                       "must be an object of token ids to biases");
  }
  for (const auto& [key, bias] : biases->items()) {
    int32_t id = 0;
    const auto [end, error] =
        std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size()) {
      return fields.Fail("logit_bias",
                         absl::StrCat("has the key ", ShortJson(json(key)),
                                      ", which is no token id"));
    }
    if (!bias.is_number() ||
        std::fabs(bias.get<double>()) > std::numeric_limits<float>::max()) {
      return fields.Fail(
          "logit_bias", absl::StrCat("of token ", id, " must be a number, got ",
                                     ShortJson(bias)));
    }
    params.logit_bias.emplace_back(id, static_cast<float>(bias.get<double>()));
  }
}

void ReadStopIds(BodyFields& fields, GenerateParams& params) {
  const json* ids = fields.Any("stop_token_ids");
  if (ids == nullptr) return;
  absl::StatusOr<std::vector<int32_t>> parsed =
      ParseTokenIds(*ids, "stop_token_ids");
  if (!parsed.ok()) return fields.Fail(parsed.status());
  params.stop_token_ids = *std::move(parsed);
}

// What both endpoints share.
GenerateParams ReadParams(BodyFields& fields) {
  GenerateParams params;
  params.temperature = fields.Float("temperature");
  params.top_p = fields.Float("top_p");
  params.min_p = fields.Float("min_p");
  params.top_k = fields.Int("top_k");
  params.repetition_penalty = fields.Float("repetition_penalty");
  const std::optional<float> repeat = fields.Float("repeat_penalty");
  if (!params.repetition_penalty.has_value()) {
    params.repetition_penalty = repeat;
  }
  params.presence_penalty = fields.Float("presence_penalty");
  params.frequency_penalty = fields.Float("frequency_penalty");
  if (const std::optional<int64_t> seed = fields.Int64("seed")) {
    params.seed = static_cast<uint64_t>(*seed);  // negative ones wrap
  }
  params.max_tokens = fields.Int("max_tokens");
  params.ignore_eos = fields.Bool("ignore_eos").value_or(false);
  ReadStop(fields, params);
  ReadStopIds(fields, params);
  ReadLogitBias(fields, params);
  return params;
}

void ReadStreaming(BodyFields& fields, OpenAiCall& call) {
  call.stream = fields.Bool("stream").value_or(false);
  const json* options = fields.Any("stream_options");
  if (options == nullptr) return;
  if (!options->is_object()) {
    return fields.Fail("stream_options", "must be an object");
  }
  if (!call.stream) {
    return fields.Fail("stream_options", "is only allowed with stream: true");
  }
  BodyFields inner(*options, "stream_options.");
  call.include_usage = inner.Bool("include_usage").value_or(false);
  inner.Unsupported("continuous_usage_stats", {false});
  inner.Ignore({"include_obfuscation"});
  fields.Fail(inner.Finish());
}

void ReadCounts(BodyFields& fields, const RequestLimits& limits,
                OpenAiCall& call) {
  call.n = fields.Int("n").value_or(1);
  if (call.n < 1 || call.n > limits.max_n) {
    fields.Fail("n", absl::StrCat("must be at least 1 and at most ",
                                  limits.max_n, ", got ", call.n));
  }
}

// Fields of OpenAI, vLLM, SGLang and llama-server that are not served. What a
// client sends as the default is accepted; anything else is refused.
void ReadUnserved(BodyFields& fields) {
  fields.Ignore({"user", "metadata", "store", "service_tier",
                 "safety_identifier", "prompt_cache_key",
                 "prompt_cache_retention", "cache_prompt", "request_id"});
  fields.Unsupported("best_of", {1});
  fields.Unsupported("response_format", {json{{"type", "text"}}});
  fields.Unsupported("min_tokens", {0});
  fields.Unsupported("use_beam_search", {false});
  fields.Unsupported("length_penalty", {1.0});
  fields.Unsupported("skip_special_tokens", {true});
  fields.Unsupported("spaces_between_special_tokens", {true});
  fields.Unsupported("include_stop_str_in_output", {false});
  fields.Unsupported("return_token_ids", {false});
  fields.Unsupported("return_tokens_as_token_ids", {false});
  fields.Unsupported("priority", {0});
  for (const char* name :
       {"prompt_logprobs", "truncate_prompt_tokens", "guided_json",
        "guided_regex", "guided_choice", "guided_grammar", "structured_outputs",
        "json_schema", "grammar", "cache_salt", "bad_words",
        "allowed_token_ids", "logits_processors", "kv_transfer_params",
        "vllm_xargs"}) {
    fields.Unsupported(name);
  }
}

// One prompt, or a list of them: strings, or lists of ids.
absl::Status ReadPrompts(const json* prompt, const RequestLimits& limits,
                         const GenerateParams& params, OpenAiCall& call) {
  if (prompt == nullptr) return FieldError("prompt", "prompt is missing");
  const auto add = [&](auto text_or_ids) {
    call.prompts.push_back(params);
    call.prompts.back().prompt = std::move(text_or_ids);
  };
  if (prompt->is_string()) {
    add(prompt->get<std::string>());
    return absl::OkStatus();
  }
  if (!prompt->is_array() || prompt->empty()) {
    return FieldError("prompt",
                      absl::StrCat("prompt must be a string, a list of "
                                   "strings, a list of token ids or a list of "
                                   "such lists, got ",
                                   ShortJson(*prompt)));
  }
  if (prompt->front().is_number()) {
    ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                     ParseTokenIds(*prompt, "prompt"));
    add(std::move(ids));
    return absl::OkStatus();
  }
  if (prompt->size() > static_cast<size_t>(limits.max_prompts)) {
    return FieldError(
        "prompt",
        absl::StrCat("prompt has ", prompt->size(), " entries, at most ",
                     limits.max_prompts, " are allowed"));
  }
  for (size_t i = 0; i < prompt->size(); ++i) {
    const json& entry = (*prompt)[i];
    if (entry.is_string() != prompt->front().is_string()) {
      return FieldError("prompt",
                        "prompt must not mix strings and other types");
    }
    if (entry.is_string()) {
      add(entry.get<std::string>());
    } else {
      ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                       ParseTokenIds(entry, absl::StrCat("prompt[", i, "]")));
      add(std::move(ids));
    }
  }
  return absl::OkStatus();
}

// Chat asks for log probabilities by two fields.
void ReadChatLogprobs(BodyFields& fields, GenerateParams& params) {
  const bool wanted = fields.Bool("logprobs").value_or(false);
  const std::optional<int32_t> top = fields.Int("top_logprobs");
  if (wanted) {
    params.logprobs = top.value_or(0);
  } else if (top.value_or(0) != 0) {
    fields.Fail("top_logprobs", "is only allowed with logprobs: true");
  }
}

// Tools go to the template; what the model says of them comes back as text.
// No choice can be forced: nothing constrains what the model writes.
void ReadTools(BodyFields& fields, OpenAiCall& call) {
  absl::StatusOr<json> tools = ParseTools(fields.Any("tools"));
  fields.Fail(tools.status());
  fields.Unsupported("tool_choice", {"none", "auto"});
  if (tools.ok() && fields.String("tool_choice") != "none") {
    call.tools = *std::move(tools);
  }
  fields.Unsupported("functions", {json::array()});
  fields.Unsupported("function_call", {"none", "auto"});
  fields.Ignore({"parallel_tool_calls"});
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> ParseTokenIds(const json& list,
                                                   const std::string& field) {
  const auto refuse = [&](const json& value) {
    return FieldError(field, absl::StrCat(field,
                                          " must be a list of token "
                                          "ids, has ",
                                          ShortJson(value)));
  };
  if (!list.is_array()) return refuse(list);
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (const json& id : list) {
    if (!id.is_number_integer()) return refuse(id);
    const int64_t value =
        id.is_number_unsigned() && id.get<uint64_t>() > uint64_t{1} << 62
            ? int64_t{1} << 62
            : id.get<int64_t>();
    if (value < std::numeric_limits<int32_t>::min() ||
        value > std::numeric_limits<int32_t>::max()) {
      return refuse(id);
    }
    ids.push_back(static_cast<int32_t>(value));
  }
  return ids;
}

absl::StatusOr<OpenAiCall> ParseCompletionCall(const json& body,
                                               const RequestLimits& limits) {
  OpenAiCall call;
  BodyFields fields(body);
  call.model = fields.String("model").value_or("");
  GenerateParams params = ReadParams(fields);
  if (!params.max_tokens.has_value()) params.max_tokens = kCompletionTokens;
  params.logprobs = fields.Int("logprobs");
  params.echo = fields.Bool("echo").value_or(false);
  params.add_special_tokens = fields.Bool("add_special_tokens").value_or(true);
  ReadStreaming(fields, call);
  ReadCounts(fields, limits, call);
  ReadUnserved(fields);
  fields.Unsupported("suffix");
  fields.Fail(ReadPrompts(fields.Any("prompt"), limits, params, call));
  RETURN_IF_ERROR(fields.Finish());
  return call;
}

absl::StatusOr<OpenAiCall> ParseChatCall(const json& body,
                                         const RequestLimits& limits) {
  OpenAiCall call;
  call.chat = true;
  BodyFields fields(body);
  call.model = fields.String("model").value_or("");
  GenerateParams params = ReadParams(fields);
  // The newer name wins, as at OpenAI.
  if (const auto newer = fields.Int("max_completion_tokens")) {
    params.max_tokens = newer;
    call.max_tokens_name = "max_completion_tokens";
  }
  params.add_special_tokens = false;  // the template writes them
  ReadChatLogprobs(fields, params);
  ReadStreaming(fields, call);
  ReadCounts(fields, limits, call);
  ReadUnserved(fields);
  ReadTools(fields, call);
  fields.Unsupported("echo", {false});
  fields.Unsupported("add_special_tokens", {false});
  fields.Unsupported("continue_final_message", {false});
  fields.Unsupported("modalities", {json::array({"text"})});
  for (const char* name :
       {"audio", "prediction", "verbosity", "web_search_options", "documents",
        "chat_template"}) {
    fields.Unsupported(name);
  }
  absl::StatusOr<json> variables =
      ParseTemplateVariables(fields.Any("chat_template_kwargs"));
  fields.Fail(variables.status());
  absl::StatusOr<json> messages =
      ParseMessages(fields.Any("messages"), limits.max_messages);
  fields.Fail(messages.status());
  const std::optional<std::string> effort = fields.String("reasoning_effort");
  const bool prompt_turn = fields.Bool("add_generation_prompt").value_or(true);
  RETURN_IF_ERROR(fields.Finish());
  call.messages = *std::move(messages);
  call.variables = *std::move(variables);
  call.variables["add_generation_prompt"] = prompt_turn;
  if (effort.has_value()) call.variables["reasoning_effort"] = *effort;
  call.prompts.push_back(std::move(params));
  return call;
}

}  // namespace bullpen
