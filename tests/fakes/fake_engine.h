#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"

namespace bullpen {

// What a fake engine gives for one request.
struct FakeAnswer {
  std::vector<TokenEvent> prompt = {};  // prompt logprobs
  std::vector<TokenEvent> tokens = {};
  bool endless = false;  // the tokens again and again, until cancelled
  bool hold = false;     // after the tokens nothing, until cancelled
  FinishReason reason = FinishReason::kStop;
  absl::Status status = absl::OkStatus();
};

// A test's hand on a fake engine, which it must outlive. Any thread.
class FakeEngineControl {
 public:
  using Script = std::function<FakeAnswer(const Request&)>;

  void SetScript(Script script);
  // Submit answers so from now on.
  void RefuseWith(absl::Status status);
  void SetHeartbeatAge(double seconds);

  // Waits until every accepted request has finished. False after 20 s.
  bool AwaitIdle() const;
  // Waits until `count` requests in all were accepted. False after 20 s.
  bool AwaitAccepted(int64_t count) const;
  int64_t accepted() const;
  int64_t cancelled() const;
  std::vector<Request> requests() const;

 private:
  friend struct FakeEngineAccess;

  bool Await(const std::function<bool()>& condition) const;

  mutable absl::Mutex mutex_;
  mutable absl::CondVar changed_;  // whenever anything below has
  Script script_ ABSL_GUARDED_BY(mutex_);
  absl::Status refusal_ ABSL_GUARDED_BY(mutex_);
  double heartbeat_age_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t unfinished_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t cancelled_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<Request> requests_ ABSL_GUARDED_BY(mutex_);
};

// An Engine (by substitution at link time: fake_engine.cc defines its members)
// that plays a script on its own thread. One at a time in a process.
std::unique_ptr<Engine> MakeFakeEngine(FakeEngineControl& control,
                                       Metrics& metrics);

}  // namespace bullpen
