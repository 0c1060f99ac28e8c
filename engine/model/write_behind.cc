#include "engine/model/write_behind.h"

#include <utility>

#include "base/status.h"

namespace bullpen {

WriteBehind::WriteBehind(SafetensorsWriter writer)
    : writer_(std::move(writer)), thread_([this] { Run(); }) {}

WriteBehind::~WriteBehind() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
}

void WriteBehind::Run() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &WriteBehind::HasWork));
      if (!given_) return;
    }
    const absl::Status written = writer_.Append(buffer_);
    absl::MutexLock lock(&mutex_);
    status_.Update(written);
    given_ = false;
  }
}

absl::Status WriteBehind::Append(std::vector<std::byte>& bytes) {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &WriteBehind::HasRoom));
  RETURN_IF_ERROR(status_);
  std::swap(buffer_, bytes);
  given_ = true;
  return absl::OkStatus();
}

absl::Status WriteBehind::Finish() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &WriteBehind::HasRoom));
  RETURN_IF_ERROR(status_);
  return writer_.Finish();
}

}  // namespace bullpen
