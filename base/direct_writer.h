#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/direct_file.h"
#include "base/huge_buffer.h"

namespace bullpen {

// Writes a new file front to back on a thread of its own, past the page cache
// (see DirectFile), while the caller makes the next bytes in the buffers that
// it lends: three of 8 MiB, or as large as the largest piece. One thread calls
// it. Errors name the file.
class DirectWriter {
 public:
  // Takes the disk's space for `bytes`, the size of the finished file, at once
  // where the file system can, so that a full disk shows before the work.
  // kBuffered: as on a file system without O_DIRECT.
  static absl::StatusOr<std::unique_ptr<DirectWriter>> Create(
      const std::filesystem::path& path, int64_t bytes,
      DirectFile::Mode mode = DirectFile::Mode::kDirect);
  ~DirectWriter();  // What is not finished may be lost.
  DirectWriter(const DirectWriter&) = delete;
  DirectWriter& operator=(const DirectWriter&) = delete;

  // Room for the next `bytes` of the file, of any content, until Commit says
  // that they are there. May wait for the disk, and gives the first error of
  // any earlier write.
  absl::StatusOr<std::span<std::byte>> Room(int64_t bytes);
  absl::Status Commit();
  // Both, with these bytes.
  absl::Status Append(std::span<const std::byte> bytes);

  // All is on the disk when it returns. CHECKs that the file has its size.
  absl::Status Finish();

 private:
  // Bytes of the file from `begin` on.
  struct Buffer {
    HugeBuffer memory;
    int64_t begin = 0;
    int64_t filled = 0;
  };

  DirectWriter(int fd, std::filesystem::path path, int64_t bytes);
  void Run();
  absl::Status Write(std::span<const std::byte> bytes, int64_t offset);
  absl::Status WriteAll(std::span<const std::byte> bytes, int64_t offset);
  // Gives whole blocks of the buffer at hand to the thread, or with `all` also
  // what is left, and goes on in one with room for `bytes`.
  absl::Status HandOver(int64_t bytes, bool all);

  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return closed_ || !full_.empty();
  }
  bool HasFree() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return !free_.empty();
  }
  bool Idle() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  const int fd_;
  const std::filesystem::path path_;
  const int64_t bytes_;
  bool direct_ = false;  // the thread's, once there is one
  Buffer filling_;       // the caller's
  int64_t lent_ = 0;     // bytes of Room that were not committed

  absl::Mutex mutex_;
  std::deque<Buffer> full_ ABSL_GUARDED_BY(mutex_);
  std::vector<Buffer> free_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::jthread thread_;
};

}  // namespace bullpen
