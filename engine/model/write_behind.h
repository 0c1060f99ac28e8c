#pragma once

#include <cstddef>
#include <optional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "engine/model/safetensors.h"

namespace bullpen {

// Writes a file on a thread of its own, so that packing goes on meanwhile. One
// thread calls it; it holds one buffer beside the caller's.
class WriteBehind {
 public:
  explicit WriteBehind(SafetensorsWriter writer);
  ~WriteBehind();  // Ends the thread; what is not finished may be lost.

  // Takes the next bytes and leaves a buffer of any content in their place.
  // Waits for those before them, and gives the first error of any.
  absl::Status Append(std::vector<std::byte>& bytes);
  // Waits, syncs, and CHECKs that all bytes of the file were written.
  absl::Status Finish();

 private:
  void Run();
  bool HasRoom() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !given_; }
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return given_ || closed_;
  }

  SafetensorsWriter writer_;  // the thread's while given_ is set
  absl::Mutex mutex_;
  bool given_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::byte> buffer_;  // likewise
  std::jthread thread_;
};

}  // namespace bullpen
