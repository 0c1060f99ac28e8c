#include "server/http_connections.h"

#include <utility>

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
  absl::MutexLock lock(&mutex_);
  open_.erase(id);
}

int32_t HttpConnections::count() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int32_t>(open_.size());
}

bool HttpConnections::WaitEmpty(Clock::time_point until) const {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(
      absl::Condition(
          +[](const std::map<int64_t, std::function<void()>>* open) {
            return open->empty();
          },
          &open_),
      absl::FromChrono(until - Clock::now()));
}

}  // namespace bullpen
