#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/request.h"

namespace bullpen {

// The one object that engine and server share for a request; either may let
// go of it first. Holds at most what max_tokens allows.
class TokenStream {
 public:
  // `on_ready` runs on the engine thread after each Push and Finish; it must
  // only hand over (post to an executor), not work.
  explicit TokenStream(std::function<void()> on_ready);

  // Engine thread. Prompt logprobs come before the first token.
  void PushPromptLogprobs(std::vector<TokenEvent> events);
  void Push(TokenEvent event);
  void Finish(Finished finished);  // CHECKs that it is the first.

  struct Batch {
    std::vector<TokenEvent> prompt;  // with Request::prompt_logprobs
    std::vector<TokenEvent> tokens;
    std::optional<Finished> finished;
  };
  // Server side: takes all there is.
  Batch Take();

  // Any thread: the engine ends the request at its next step. Idempotent.
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  std::function<void()> on_ready_;
  std::atomic<bool> cancelled_{false};
  absl::Mutex mutex_;
  Batch ready_ ABSL_GUARDED_BY(mutex_);
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace bullpen
