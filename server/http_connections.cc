#include "server/http_connections.h"

#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace bullpen {

void HttpConnections::Enter(Phase phase) {
  phase_.store(phase);
  absl::MutexLock lock(&mutex_);
  for (const auto& [id, wake] : open_) wake();
}

int64_t HttpConnections::Add(std::function<void()> wake) {
  absl::MutexLock lock(&mutex_);
  open_.emplace(next_id_, std::move(wake));
  return next_id_++;
}

void HttpConnections::Remove(int64_t id) {
  // Destroyed after the lock: a wake may take it as it goes.
  std::map<int64_t, std::function<void()>>::node_type removed;
  absl::MutexLock lock(&mutex_);
  removed = open_.extract(id);
  removed_.SignalAll();
}

int32_t HttpConnections::count() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int32_t>(open_.size());
}

bool HttpConnections::WaitEmpty(Clock::time_point until) const {
  const absl::Time deadline =
      absl::Now() + absl::FromChrono(until - Clock::now());
  absl::MutexLock lock(&mutex_);
  while (!open_.empty()) {
    if (removed_.WaitWithDeadline(&mutex_, deadline)) return open_.empty();
  }
  return true;
}

void HttpConnections::HoldExecutor() {
  absl::MutexLock lock(&mutex_);
  ++held_;
}

void HttpConnections::ReleaseExecutor() {
  absl::MutexLock lock(&mutex_);
  --held_;
  removed_.SignalAll();
}

void HttpConnections::WaitExecutorsReleased() const {
  absl::MutexLock lock(&mutex_);
  while (held_ > 0) removed_.Wait(&mutex_);
}

}  // namespace bullpen
