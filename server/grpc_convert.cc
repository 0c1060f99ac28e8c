#include "server/grpc_convert.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/strings.h"
#include "server/errors.h"

namespace bullpen {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;

absl::StatusOr<std::string> RenderChat(const v1::ChatMessages& chat,
                                       ChatTemplate& chat_template) {
  if (chat.messages().empty()) {
    return FieldError("chat", "chat has no messages; at least 1 is needed");
  }
  nlohmann::json messages = nlohmann::json::array();
  for (const v1::ChatMessage& message : chat.messages()) {
    if (!IsValidUtf8(message.role()) || !IsValidUtf8(message.content())) {
      return FieldError("chat", "a chat message is not valid UTF-8");
    }
    messages.push_back(
        {{"role", message.role()}, {"content", message.content()}});
  }
  absl::StatusOr<std::string> text = chat_template.Render(
      messages, nullptr, {{"add_generation_prompt", true}});
  const absl::Status& status = text.status();
  // ResourceExhausted would say that the queue is full: try the same again.
  if (absl::IsInvalidArgument(status) || absl::IsResourceExhausted(status)) {
    return FieldError("chat", Std(status.message()));
  }
  return text;
}

absl::Status FillPrompt(const v1::GenerateRequest& request, Service& service,
                        GenerateParams& params) {
  switch (request.input_case()) {
    case v1::GenerateRequest::kPrompt:
      params.prompt = request.prompt();
      return absl::OkStatus();
    case v1::GenerateRequest::kPromptIds:
      params.prompt = std::vector<int32_t>(request.prompt_ids().ids().begin(),
                                           request.prompt_ids().ids().end());
      return absl::OkStatus();
    case v1::GenerateRequest::kChat: {
      ASSIGN_OR_RETURN(params.prompt,
                       RenderChat(request.chat(), service.chat()));
      params.add_special_tokens = false;
      return absl::OkStatus();
    }
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  return FieldError("input", "one of prompt, prompt_ids and chat must be set");
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  return {static_cast<grpc::StatusCode>(status.code()),
          std::string(status.message())};
}

absl::Status CheckSize(const v1::GenerateRequest& request,
                       const RequestLimits& limits) {
  const int32_t messages = request.chat().messages_size();
  if (messages <= limits.max_messages) return absl::OkStatus();
  return FieldError("chat",
                    absl::StrCat("chat has ", messages, " messages, at most ",
                                 limits.max_messages, " are allowed"));
}

absl::Status CheckAwaited(const grpc::CallbackServerContext& context) {
  if (context.deadline() <= std::chrono::system_clock::now()) {
    return absl::DeadlineExceededError("the call's time was up in the queue");
  }
  if (context.IsCancelled()) {
    return absl::CancelledError("the client cancelled the call");
  }
  return absl::OkStatus();
}

absl::StatusOr<GenerateParams> ToParams(const v1::GenerateRequest& request,
                                        Service& service) {
  if (!request.model().empty() && request.model() != service.facts().id) {
    return absl::NotFoundError(absl::StrCat("The model '", request.model(),
                                            "' does not exist; this server "
                                            "has '",
                                            service.facts().id, "'"));
  }
  GenerateParams params;
  RETURN_IF_ERROR(FillPrompt(request, service, params));
  const v1::SamplingParams& sampling = request.sampling();
  if (sampling.has_temperature()) params.temperature = sampling.temperature();
  if (sampling.has_top_k()) params.top_k = sampling.top_k();
  if (sampling.has_top_p()) params.top_p = sampling.top_p();
  if (sampling.has_min_p()) params.min_p = sampling.min_p();
  if (sampling.has_seed()) params.seed = sampling.seed();
  if (sampling.has_repetition_penalty()) {
    params.repetition_penalty = sampling.repetition_penalty();
  }
  if (sampling.has_presence_penalty()) {
    params.presence_penalty = sampling.presence_penalty();
  }
  if (sampling.has_frequency_penalty()) {
    params.frequency_penalty = sampling.frequency_penalty();
  }
  if (request.has_max_tokens()) params.max_tokens = request.max_tokens();
  params.stop.assign(request.stop().begin(), request.stop().end());
  params.stop_token_ids.assign(request.stop_token_ids().begin(),
                               request.stop_token_ids().end());
  params.ignore_eos = request.ignore_eos();
  if (request.has_logprobs()) params.logprobs = request.logprobs();
  return params;
}

absl::StatusOr<std::string> RequestId(const v1::GenerateRequest& request) {
  const std::string& id = request.request_id();
  if (id.empty()) {
    std::random_device device;
    return absl::StrCat("gen-", absl::Hex(device(), absl::kZeroPad8),
                        absl::Hex(device(), absl::kZeroPad8));
  }
  if (id.size() > kMaxRequestIdBytes) {
    return FieldError(
        "request_id",
        absl::StrCat("request_id has ", id.size(), " bytes, at most ",
                     kMaxRequestIdBytes, " are allowed"));
  }
  if (!std::all_of(id.begin(), id.end(), absl::ascii_isgraph)) {
    return FieldError("request_id",
                      "request_id must be printable ASCII without spaces");
  }
  return id;
}

void FillToken(const TokenEvent& event, const Tokenizer& tokenizer,
               v1::Token& token) {
  token.set_id(event.id);
  if (event.logprob.has_value()) token.set_logprob(*event.logprob);
  for (const TokenLogprob& top : event.top) {
    v1::TokenLogprob& out = *token.add_top_logprobs();
    out.set_id(top.id);
    out.set_token(tokenizer.TokenBytes(top.id));
    out.set_logprob(top.logprob);
  }
}

void FillModel(const ModelFacts& facts, v1::GetModelResponse& response) {
  response.set_id(facts.id);
  response.set_architecture(facts.architecture);
  response.set_context_length(facts.context);
  response.set_vocab_size(facts.vocab);
  response.set_layers(facts.layers);
  response.set_experts(facts.experts);
  response.set_experts_per_token(facts.experts_per_token);
}

void FillCache(const CacheSnapshot& snapshot,
               v1::GetExpertCacheResponse& response) {
  response.set_slot_bytes(static_cast<uint64_t>(snapshot.arena_bytes));
  response.set_loads(snapshot.loads);
  response.set_load_failures(snapshot.load_failures);
  response.set_bytes_loaded(snapshot.bytes_loaded);
  response.set_stall_seconds(snapshot.stall_seconds);
  for (size_t i = 0; i < snapshot.layers.size(); ++i) {
    const CacheSnapshot::Layer& layer = snapshot.layers[i];
    v1::ExpertCacheLayer& out = *response.add_layers();
    out.set_layer(static_cast<int32_t>(i));
    out.set_experts(layer.experts);
    out.set_slots(layer.slots);
    out.set_resident(static_cast<int32_t>(layer.resident.size()));
    out.set_loading(static_cast<int32_t>(layer.loading.size()));
    out.set_lookups(layer.lookups);
    out.set_hits(layer.hits);
    out.mutable_resident_experts()->Add(layer.resident.begin(),
                                        layer.resident.end());
  }
}

}  // namespace bullpen
