#pragma once

#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/request.h"
#include "grpcpp/server_context.h"

namespace bullpen {

// The writes that clients have not taken yet, at most one of each call. gRPC
// waits for ever for a client that does not read, and the call holds its
// tokens meanwhile. Any thread; a context must be ended before it goes, which
// is right after its reactor's OnDone: hence the lock.
class PendingWrites {
 public:
  explicit PendingWrites(double limit_seconds)
      : limit_seconds_(limit_seconds) {}

  void Begin(const grpc::CallbackServerContext& context);
  // Does nothing for a call whose write has not begun.
  void End(const grpc::CallbackServerContext& context);
  // Cancels and logs the calls whose write is older than the limit.
  void CancelOld(Clock::time_point now);

  double limit_seconds() const { return limit_seconds_; }

 private:
  const double limit_seconds_;
  absl::Mutex mutex_;
  std::unordered_map<const grpc::CallbackServerContext*, Clock::time_point>
      begun_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bullpen
