#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/openai_choice.h"
#include "server/openai_request.h"
#include "server/openai_response.h"
#include "server/service.h"

namespace bullpen {

struct GenerationArgs {
  Service& service;
  bool chat = false;
  std::string_view body;
  std::string request_id;
  // Called on the engine thread when there may be something to take. Each
  // stream keeps a copy until engine and Generation have let go of it.
  std::function<void()> wake;
};

// One call of the OpenAI API, from its body to its last byte. Start may take
// long (templates, tokenising) and runs on any thread; afterwards the owner's
// thread takes events until ended(). Destroying it cancels what still runs.
class Generation {
 public:
  // All of the call's choices are submitted, or none.
  static absl::StatusOr<std::unique_ptr<Generation>> Start(
      const GenerationArgs& args);

  bool streamed() const { return call_.stream; }
  // Takes what the engine gave. Streamed: appends events to `out`, from the
  // roles to [DONE] or an error event.
  void Take(std::string& out);
  // All choices are complete, or one has failed and the others are cancelled.
  bool ended() const { return ended_; }
  const absl::Status& status() const { return status_; }
  // Of a call that is not streamed, after ended() with an OK status.
  std::string WholeBody() const;

  // For the log.
  Usage usage() const;
  const Finished& timings() const { return choices_.front().finished(); }
  std::string_view finish_reason() const;

 private:
  Generation(const Service& service, OpenAiCall call);
  absl::Status Submit(const GenerationArgs& args);
  void Begin(std::string& out);
  void TakeChoice(int32_t index, std::string& out);
  void EndStream(std::string& out) const;

  OpenAiCall call_;
  const Tokenizer& tokenizer_;
  int64_t prompt_tokens_ = 0;    // a prompt counts once, whatever n
  std::vector<Choice> choices_;  // prompt-major: index = prompt * n + i
  std::vector<WholeChoice> whole_;
  std::vector<ChoiceDelta> deltas_;  // scratch
  std::optional<ResponseWriter> writer_;
  bool begun_ = false;
  bool ended_ = false;
  absl::Status status_;
};

}  // namespace bullpen
