#include "server/openai_generation.h"

#include <chrono>
#include <utility>

#include "absl/strings/match.h"
#include "base/status.h"
#include "base/strings.h"
#include "server/errors.h"
#include "server/openai_json.h"

namespace bullpen {
namespace {

int64_t UnixSeconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

absl::Status CheckModel(const std::string& asked, const ModelFacts& facts) {
  if (asked.empty() || asked == facts.id) return absl::OkStatus();
  return absl::NotFoundError(
      absl::StrCat("The model ", ShortJson(nlohmann::json(asked)),
                   " does not exist; this server serves ",
                   ShortJson(nlohmann::json(facts.id))));
}

// ToRequest names the fields of completions, and one prompt; chat has its own
// names, and a call may have several prompts.
absl::Status InTermsOf(const OpenAiCall& call, size_t prompt,
                       const absl::Status& status) {
  const std::optional<std::string> param = ErrorParam(status);
  if (!param.has_value()) return status;
  std::string name = *param;
  if (name == "max_tokens") name = call.max_tokens_name;
  if (call.chat && name == "prompt") name = "messages";
  if (call.chat && name == "logprobs") name = "top_logprobs";
  if (name == "prompt" && call.prompts.size() > 1) {
    name = absl::StrCat("prompt[", prompt, "]");
  }
  std::string message(status.message());
  if (absl::StartsWith(message, *param)) {
    message.replace(0, param->size(), name);
  }
  return FieldError(name, message, ErrorCode(status).value_or(""));
}

// The queue takes all of a call's choices, or none.
absl::Status CheckChoices(const OpenAiCall& call, const RequestLimits& limits) {
  const int64_t choices = static_cast<int64_t>(call.prompts.size()) * call.n;
  if (choices <= limits.max_choices) return absl::OkStatus();
  return FieldError(
      "n", absl::StrCat("n = ", call.n, " for each of ", call.prompts.size(),
                        " prompts makes ", choices,
                        " choices; this server takes at most ",
                        limits.max_choices, " at once"));
}

// What a call's log probabilities take in memory, until the last is written.
int64_t LogprobsOf(const GenerateParams& params, const Request& request) {
  if (!params.logprobs.has_value()) return 0;
  const int64_t tokens =
      request.max_tokens +
      (params.echo ? static_cast<int64_t>(request.prompt.size()) : 0);
  return tokens * (1 + *params.logprobs);
}

absl::StatusOr<OpenAiCall> ParseCall(const GenerationArgs& args) {
  const RequestLimits& limits = args.service.limits();
  ASSIGN_OR_RETURN(const nlohmann::ordered_json body,
                   ParseJsonObject(args.body, limits));
  return args.chat ? ParseChatCall(body, limits)
                   : ParseCompletionCall(body, limits);
}

// A template without a word about tools would drop them unseen.
absl::Status CheckTools(const ChatTemplate& chat, const OpenAiCall& call) {
  if (!call.tools.is_null() && !chat.takes_tools()) {
    return FieldError("tools",
                      "tools: this model's chat template does not take tools");
  }
  if (chat.takes_tool_calls()) return absl::OkStatus();
  for (size_t i = 0; i < call.messages.size(); ++i) {
    if (!call.messages[i].contains("tool_calls")) continue;
    const std::string place = absl::StrCat("messages[", i, "].tool_calls");
    return FieldError(place, absl::StrCat(place,
                                          ": this model's chat template does "
                                          "not take tool calls"));
  }
  return absl::OkStatus();
}

// What the template refuses is the fault of what it was given, and so is
// output beyond its limits: trying again would not help.
absl::StatusOr<std::string> RenderChat(ChatTemplate& chat,
                                       const OpenAiCall& call) {
  RETURN_IF_ERROR(CheckTools(chat, call));
  absl::StatusOr<std::string> text =
      chat.Render(call.messages, call.tools, call.variables);
  const absl::Status& status = text.status();
  if (absl::IsInvalidArgument(status) || absl::IsResourceExhausted(status)) {
    return FieldError("messages", Std(status.message()));
  }
  return text;
}

// What a choice needs of its prompt to say it again.
ChoiceArgs ToChoiceArgs(const GenerateParams& params, const Request& request,
                        const Tokenizer& tokenizer) {
  ChoiceArgs args{.stop = params.stop,
                  .logprobs = params.logprobs.has_value(),
                  .echo = params.echo};
  if (!params.echo) return args;
  const auto* text = std::get_if<std::string>(&params.prompt);
  args.prompt_text = text != nullptr ? *text
                                     : tokenizer.Decode(request.prompt,
                                                        /*skip_special=*/false);
  return args;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Generation>> Generation::Start(
    const GenerationArgs& args) {
  Service& service = args.service;
  RETURN_IF_ERROR(service.CheckReady());
  ASSIGN_OR_RETURN(OpenAiCall call, ParseCall(args));
  RETURN_IF_ERROR(CheckModel(call.model, service.facts()));
  RETURN_IF_ERROR(CheckChoices(call, service.limits()));
  if (call.chat) {
    ASSIGN_OR_RETURN(call.prompts.front().prompt,
                     RenderChat(service.chat(), call));
  }
  auto generation =
      std::unique_ptr<Generation>(new Generation(service, std::move(call)));
  RETURN_IF_ERROR(generation->Submit(args));
  return generation;
}

Generation::Generation(const Service& service, OpenAiCall call)
    : call_(std::move(call)), tokenizer_(service.tokenizer()) {}

absl::Status Generation::Submit(const GenerationArgs& args) {
  std::vector<Submission> submissions;
  const RequestLimits& limits = args.service.limits();
  int64_t logprobs = 0;
  for (size_t p = 0; p < call_.prompts.size(); ++p) {
    const GenerateParams& params = call_.prompts[p];
    const absl::StatusOr<Request> request =
        ToRequest(params, args.service.facts(), limits, tokenizer_);
    if (!request.ok()) return InTermsOf(call_, p, request.status());
    prompt_tokens_ += static_cast<int64_t>(request->prompt.size());
    logprobs += call_.n * LogprobsOf(params, *request);
    if (logprobs > limits.max_logprobs_in_all) {
      return InTermsOf(
          call_, p,
          FieldError("logprobs",
                     absl::StrCat("logprobs asks for more than ",
                                  limits.max_logprobs_in_all,
                                  " log probabilities in all: tokens of all "
                                  "choices times those of each")));
    }
    for (int32_t i = 0; i < call_.n; ++i) {
      const int32_t index = static_cast<int32_t>(submissions.size());
      Request copy = *request;
      copy.id = index == 0 ? args.request_id
                           : absl::StrCat(args.request_id, "/", index);
      copy.sampling.seed += static_cast<uint64_t>(i);
      auto stream = std::make_shared<TokenStream>(args.wake);
      choices_.emplace_back(tokenizer_, ToChoiceArgs(params, copy, tokenizer_),
                            stream);
      submissions.push_back({std::move(copy), std::move(stream)});
    }
  }
  whole_.resize(choices_.size());
  writer_.emplace(
      ResponseFacts{
          .chat = call_.chat,
          .id = (call_.chat ? "chatcmpl-" : "cmpl-") + args.request_id,
          .created = UnixSeconds(),
          .model = args.service.facts().id,
          .logprobs = call_.prompts.front().logprobs.has_value(),
          .include_usage = call_.include_usage},
      tokenizer_);
  return args.service.engine().Submit(std::move(submissions));
}

void Generation::Begin(std::string& out) {
  begun_ = true;
  for (size_t i = 0; i < choices_.size(); ++i) {
    writer_->Role(out, static_cast<int32_t>(i));
  }
}

void Generation::Take(std::string& out) {
  if (ended_) return;
  if (call_.stream && !begun_) Begin(out);
  bool all_ended = true;
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (!choices_[i].ended()) TakeChoice(static_cast<int32_t>(i), out);
    if (!choices_[i].status().ok()) {
      status_ = choices_[i].status();
      ended_ = true;
      for (Choice& choice : choices_) choice.Cancel();
      if (call_.stream) ResponseWriter::Error(out, ToApiError(status_));
      return;
    }
    all_ended = all_ended && choices_[i].ended();
  }
  ended_ = all_ended;
  if (ended_ && call_.stream) EndStream(out);
}

void Generation::TakeChoice(int32_t index, std::string& out) {
  Choice& choice = choices_[index];
  deltas_.clear();
  choice.Take(deltas_);
  if (call_.stream) {
    for (const ChoiceDelta& delta : deltas_) writer_->Delta(out, index, delta);
    if (choice.ended() && choice.status().ok()) {
      writer_->Finish(out, index, choice.finish_reason());
    }
    return;
  }
  WholeChoice& whole = whole_[index];
  for (ChoiceDelta& delta : deltas_) {
    whole.text += delta.text;
    std::move(delta.tokens.begin(), delta.tokens.end(),
              std::back_inserter(whole.tokens));
  }
  whole.finish_reason = choice.finish_reason();
}

void Generation::EndStream(std::string& out) const {
  if (call_.include_usage) writer_->UsageChunk(out, usage());
  ResponseWriter::Done(out);
}

std::string Generation::WholeBody() const {
  return writer_->Whole(whole_, usage());
}

Usage Generation::usage() const {
  Usage usage{.prompt_tokens = prompt_tokens_};
  for (const Choice& choice : choices_) {
    usage.completion_tokens += choice.completion_tokens();
  }
  return usage;
}

std::string_view Generation::finish_reason() const {
  if (!status_.ok()) return "error";
  return ended_ ? choices_.front().finish_reason() : "cancelled";
}

}  // namespace bullpen
