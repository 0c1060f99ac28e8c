#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "engine/model/tokenizer.h"
#include "engine/token_stream.h"
#include "server/text_stream.h"

namespace bullpen {

// A token and where its text begins in the choice's text, in characters.
struct PlacedToken {
  TokenEvent event;
  int64_t text_offset = 0;
};

// A piece of a choice: what is new since the piece before it.
struct ChoiceDelta {
  std::string text;
  std::vector<PlacedToken> tokens;  // only if the request asked for logprobs
};

struct ChoiceArgs {
  std::vector<std::string> stop = {};
  bool logprobs = false;
  bool echo = false;
  std::string prompt_text = {};  // with echo
};

// One of a response's choices: takes the engine's tokens, gives text. Ends at a
// stop string by itself and then cancels the rest. One thread at a time.
class Choice {
 public:
  Choice(const Tokenizer& tokenizer, ChoiceArgs args,
         std::shared_ptr<TokenStream> stream);
  ~Choice();  // Cancels what still runs.
  Choice(Choice&&) = default;

  // Appends what has come: one delta for each token that gave text.
  void Take(std::vector<ChoiceDelta>& out);

  bool ended() const { return ended_; }
  // "stop" or "length"; after ended() with an OK status.
  std::string_view finish_reason() const { return finish_reason_; }
  const absl::Status& status() const { return finished_.status; }
  int32_t completion_tokens() const { return completion_tokens_; }
  // Zero times where a stop string came before the engine's own end.
  const Finished& finished() const { return finished_; }
  void Cancel();

 private:
  void TakeEcho(std::vector<TokenEvent> prompt, std::vector<ChoiceDelta>& out);
  void TakeToken(TokenEvent event, std::vector<ChoiceDelta>& out);
  void TakeFinished(Finished finished, std::vector<ChoiceDelta>& out);
  void Release(std::string text, std::vector<ChoiceDelta>& out);
  void StopHere();

  const Tokenizer& tokenizer_;
  ChoiceArgs args_;
  std::shared_ptr<TokenStream> stream_;
  TextStream text_;
  std::vector<PlacedToken> pending_;  // tokens whose text is held back
  int64_t token_offset_ = 0;          // characters of all tokens so far
  int64_t released_ = 0;              // characters given out
  bool echo_due_;
  bool ended_ = false;
  std::string_view finish_reason_;
  Finished finished_;
  int32_t completion_tokens_ = 0;
};

// Characters of `text`: bytes that do not continue one.
int64_t Characters(std::string_view text);

}  // namespace bullpen
