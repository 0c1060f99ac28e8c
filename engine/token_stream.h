#pragma once

#include <atomic>
#include <cstdint>
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

  // What the server still wants. Any thread; the first that is not kMore stays,
  // and the engine ends the request at its next step, or amid one of which
  // nobody wants more.
  enum class Wish : uint8_t { kMore, kStop, kCancel };
  // The answer is complete, as by a stop string.
  void Stop() { Want(Wish::kStop); }
  // Nobody waits for the answer any more.
  void Cancel() { Want(Wish::kCancel); }
  Wish wish() const { return wish_.load(std::memory_order_relaxed); }

 private:
  void Want(Wish wish) {
    Wish more = Wish::kMore;
    wish_.compare_exchange_strong(more, wish, std::memory_order_relaxed);
  }

  std::function<void()> on_ready_;
  std::atomic<Wish> wish_{Wish::kMore};
  absl::Mutex mutex_;
  Batch ready_ ABSL_GUARDED_BY(mutex_);
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace bullpen
