#include "engine/token_stream.h"

#include <utility>

#include "base/check.h"

namespace bullpen {

TokenStream::TokenStream(std::function<void()> on_ready)
    : on_ready_(std::move(on_ready)) {}

void TokenStream::PushPromptLogprobs(std::vector<TokenEvent> events) {
  {
    absl::MutexLock lock(&mutex_);
    CHECK(!done_) << "prompt logprobs after the end of a stream";
    ready_.prompt = std::move(events);
  }
  if (on_ready_) on_ready_();
}

void TokenStream::Push(TokenEvent event) {
  {
    absl::MutexLock lock(&mutex_);
    CHECK(!done_) << "a token after the end of a stream";
    ready_.tokens.push_back(std::move(event));
  }
  if (on_ready_) on_ready_();
}

void TokenStream::Finish(Finished finished) {
  {
    absl::MutexLock lock(&mutex_);
    CHECK(!done_) << "a stream finished twice";
    done_ = true;
    ready_.finished = std::move(finished);
  }
  if (on_ready_) on_ready_();
}

TokenStream::Batch TokenStream::Take() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(ready_, Batch());
}

}  // namespace bullpen
