#pragma once

#include <cstdint>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace bullpen {

// How many calls may be under way, and how much memory their requests may take
// together while they wait for a worker or are with one. Any thread.
class CallBudget {
 public:
  CallBudget(int32_t max_calls, int64_t max_request_bytes)
      : max_calls_(max_calls), max_request_bytes_(max_request_bytes) {}

  // Keeps a place for one call while it lives. Move-only.
  class Share {
   public:
    Share(Share&& other) noexcept
        : budget_(std::exchange(other.budget_, nullptr)),
          bytes_(std::exchange(other.bytes_, 0)) {}
    Share& operator=(Share&&) = delete;
    ~Share();
    // The request has been freed; the call goes on.
    void GiveBytesBack();
    int64_t bytes() const { return bytes_; }

   private:
    friend class CallBudget;
    Share(CallBudget* budget, int64_t bytes) : budget_(budget), bytes_(bytes) {}

    CallBudget* budget_;
    int64_t bytes_;
  };

  // ResourceExhausted names the limit. A request that is the only one is taken
  // whatever it needs, so that none is refused for ever.
  absl::StatusOr<Share> Take(int64_t bytes);

 private:
  const int32_t max_calls_;
  const int64_t max_request_bytes_;
  absl::Mutex mutex_;
  int32_t calls_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t request_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Frees what gRPC's request or response holds, which gRPC itself does once the
// call is over: for Generate, when its answer is. Nobody may read it after.
template <typename Message>
void FreeContent(const Message& message) {
  Message().Swap(&const_cast<Message&>(message));
}

}  // namespace bullpen
