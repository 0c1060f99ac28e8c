#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/request.h"

namespace bullpen {

// The open connections of a server, and how far its shutdown has come. Any
// thread.
class HttpConnections {
 public:
  enum class Phase { kServing, kClosing, kCut };
  static constexpr int32_t kSpacedAnswers = 16;

  Phase phase() const { return phase_.load(); }
  // Sets the phase and wakes every connection to look at it.
  void Enter(Phase phase);

  // `wake` is called, on some thread, when the phase changes.
  int64_t Add(std::function<void()> wake);
  void Remove(int64_t id);
  int32_t count() const;

  // Whether there was none before the time was up.
  bool WaitEmpty(Clock::time_point until) const;

  // Counts an answer that waits for tokens, while it lives.
  class Generating {
   public:
    explicit Generating(HttpConnections& connections)
        : connections_(connections) {
      connections_.generating_.fetch_add(1, std::memory_order_relaxed);
    }
    ~Generating() {
      connections_.generating_.fetch_sub(1, std::memory_order_relaxed);
    }
    Generating(const Generating&) = delete;
    Generating& operator=(const Generating&) = delete;

   private:
    HttpConnections& connections_;
  };
  // How far apart one answer takes its tokens at least, so that up to
  // kSpacedAnswers together do it no more than 4,000 times a second: each time
  // costs the CPUs that compute some 20 us of system calls, whether it brings
  // one token or several. No more: the others mostly wait in the queue.
  std::chrono::microseconds TakeInterval() const {
    return std::chrono::microseconds(250) *
           std::min(generating_.load(std::memory_order_relaxed),
                    kSpacedAnswers);
  }

  // Changes how many bytes the bodies of all requests have that were not parsed
  // yet; gives their sum.
  int64_t AddBodyBytes(int64_t change) {
    return body_bytes_.fetch_add(change, std::memory_order_relaxed) + change;
  }

  // What other threads hold of the server's executors is counted: they must
  // all be gone before the executors' context may be.
  void HoldExecutor();
  void ReleaseExecutor();
  void WaitExecutorsReleased() const;

 private:
  std::atomic<Phase> phase_{Phase::kServing};
  std::atomic<int32_t> generating_{0};
  std::atomic<int64_t> body_bytes_{0};
  mutable absl::Mutex mutex_;
  mutable absl::CondVar removed_;  // of open_, or of held_
  int64_t held_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t next_id_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<int64_t, std::function<void()>> open_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bullpen
