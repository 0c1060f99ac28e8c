#include "server/openai_choice.h"

#include <iterator>
#include <utility>

namespace bullpen {

int64_t Characters(std::string_view text) {
  int64_t count = 0;
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) >> 6) != 0x2) ++count;
  }
  return count;
}

Choice::Choice(const Tokenizer& tokenizer, ChoiceArgs args,
               std::shared_ptr<TokenStream> stream)
    : tokenizer_(tokenizer),
      args_(std::move(args)),
      stream_(std::move(stream)),
      text_(tokenizer, args_.stop),
      echo_due_(args_.echo) {}

Choice::~Choice() { Cancel(); }

void Choice::Cancel() {
  if (stream_ != nullptr) stream_->Cancel();
}

void Choice::Take(std::vector<ChoiceDelta>& out) {
  if (ended_) return;
  TokenStream::Batch batch = stream_->Take();
  const bool failed =
      batch.finished.has_value() && !batch.finished->status.ok();
  // Prompt logprobs come before the first token, in a batch of their own or
  // with it.
  const bool echo_ready = !args_.logprobs || !batch.prompt.empty() ||
                          !batch.tokens.empty() || batch.finished.has_value();
  if (echo_due_ && echo_ready && !failed) {
    echo_due_ = false;
    TakeEcho(std::move(batch.prompt), out);
  }
  for (TokenEvent& event : batch.tokens) {
    TakeToken(std::move(event), out);
    if (ended_) return;
  }
  if (batch.finished.has_value()) {
    TakeFinished(*std::move(batch.finished), out);
  }
}

void Choice::TakeEcho(std::vector<TokenEvent> prompt,
                      std::vector<ChoiceDelta>& out) {
  ChoiceDelta delta;
  const std::string_view text = args_.prompt_text;
  std::string_view rest = text;
  for (TokenEvent& event : prompt) {
    const std::string bytes = tokenizer_.TokenBytes(event.id);
    const int64_t offset = token_offset_;
    // A special token that the tokenizer added is not in the text.
    const bool in_text =
        !tokenizer_.IsSpecial(event.id) || rest.starts_with(bytes);
    if (in_text) {
      token_offset_ += Characters(bytes);
      rest.remove_prefix(std::min(bytes.size(), rest.size()));
    }
    delta.tokens.push_back({std::move(event), offset});
  }
  delta.text = text;
  token_offset_ = released_ = Characters(text);
  out.push_back(std::move(delta));
}

void Choice::TakeToken(TokenEvent event, std::vector<ChoiceDelta>& out) {
  ++completion_tokens_;
  const int32_t id = event.id;
  if (args_.logprobs) {
    pending_.push_back({std::move(event), token_offset_});
    if (!tokenizer_.IsSpecial(id)) {
      token_offset_ += Characters(tokenizer_.TokenBytes(id));
    }
  }
  std::string text = text_.Push(id);
  if (text_.stopped()) {
    Release(std::move(text), out);
    StopHere();
  } else if (!text.empty()) {
    Release(std::move(text), out);
  }
}

void Choice::TakeFinished(Finished finished, std::vector<ChoiceDelta>& out) {
  finished_ = std::move(finished);
  ended_ = true;
  if (!finished_.status.ok()) return;
  completion_tokens_ = finished_.completion_tokens;
  finish_reason_ = finished_.reason == FinishReason::kStop ? "stop" : "length";
  std::string rest = text_.Flush();
  if (!rest.empty() || !pending_.empty()) Release(std::move(rest), out);
}

void Choice::Release(std::string text, std::vector<ChoiceDelta>& out) {
  released_ += Characters(text);
  if (text_.stopped()) {
    // The tokens of the stop string itself are not part of the answer.
    std::erase_if(pending_, [&](const PlacedToken& token) {
      return token.text_offset >= released_;
    });
    if (text.empty() && pending_.empty()) return;
  }
  out.push_back({std::move(text), std::exchange(pending_, {})});
}

void Choice::StopHere() {
  ended_ = true;
  finish_reason_ = "stop";
  stream_->Stop();
}

}  // namespace bullpen
