#include "server/grpc_writes.h"

#include <chrono>

#include "server/grpc_log.h"

namespace bullpen {

void PendingWrites::Begin(const grpc::CallbackServerContext& context) {
  const absl::MutexLock lock(&mutex_);
  begun_[&context] = Clock::now();
}

void PendingWrites::End(const grpc::CallbackServerContext& context) {
  const absl::MutexLock lock(&mutex_);
  begun_.erase(&context);
}

void PendingWrites::CancelOld(Clock::time_point now) {
  const std::chrono::duration<double> limit(limit_seconds_);
  const absl::MutexLock lock(&mutex_);
  std::erase_if(begun_, [&](const auto& write) {
    if (now - write.second < limit) return false;
    LogGrpcSlowReader(write.first->peer(), limit_seconds_);
    // What follows from it runs on gRPC's threads, never inside.
    write.first->TryCancel();
    return true;
  });
}

}  // namespace bullpen
