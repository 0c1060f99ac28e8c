#include "server/grpc_budget.h"

#include "absl/strings/str_cat.h"

namespace bullpen {

absl::StatusOr<CallBudget::Share> CallBudget::Take(int64_t bytes) {
  const absl::MutexLock lock(&mutex_);
  if (calls_ >= max_calls_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("more than ", max_calls_, " calls are under way"));
  }
  if (request_bytes_ > 0 && request_bytes_ + bytes > max_request_bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "requests that wait take ", request_bytes_, " bytes; with this one's ",
        bytes, " they would take more than ", max_request_bytes_,
        ", the limit"));
  }
  ++calls_;
  request_bytes_ += bytes;
  return Share(this, bytes);
}

void CallBudget::Share::GiveBytesBack() {
  const absl::MutexLock lock(&budget_->mutex_);
  budget_->request_bytes_ -= std::exchange(bytes_, 0);
}

CallBudget::Share::~Share() {
  if (budget_ == nullptr) return;
  GiveBytesBack();
  const absl::MutexLock lock(&budget_->mutex_);
  --budget_->calls_;
}

}  // namespace bullpen
