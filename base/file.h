#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bullpen {

// "cannot VERB PATH: reason" of a failed system call's errno, with the code
// that File's errors have.
absl::Status SystemError(std::string_view verb,
                         const std::filesystem::path& path, int error);

// An open regular file. Move-only; closes itself. Errors name the path, what
// was tried and the system's reason: NotFound, PermissionDenied,
// ResourceExhausted (disk full, quota, size limit), DataLoss (too short,
// unreadable), FailedPrecondition (not a regular file, a link to none).
class File {
 public:
  static absl::StatusOr<File> OpenForRead(const std::filesystem::path& path);
  // AlreadyExists if there is such a file.
  static absl::StatusOr<File> Create(const std::filesystem::path& path);

  File(File&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)),
        path_(std::move(other.path_)),
        size_(other.size_) {}
  File& operator=(File&& other) noexcept;
  ~File();

  // Fills `out`; DataLoss if the file ends before. Any thread.
  absl::Status ReadAt(int64_t offset, std::span<std::byte> out) const;
  absl::Status Append(std::span<const std::byte> bytes);
  // On the disk when it returns.
  absl::Status Sync();

  const std::filesystem::path& path() const { return path_; }
  int64_t size() const { return size_; }  // at opening, plus what was appended

 private:
  File(int fd, std::filesystem::path path, int64_t size)
      : fd_(fd), path_(std::move(path)), size_(size) {}
  int fd_ = -1;
  std::filesystem::path path_;
  int64_t size_ = 0;
};

// The whole file; ResourceExhausted if it is longer than `limit`.
absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path,
                                     int64_t limit);

// A new file with these bytes, on the disk when it returns.
absl::Status WriteNewFile(const std::filesystem::path& path,
                          std::string_view bytes);

// Makes renames and new names in `directory` last.
absl::Status SyncDirectory(const std::filesystem::path& directory);

// An exclusive lock between processes, held while this object lives: a file
// at `path` that is locked with flock and removed at the end. A process that
// dies gives its lock back.
class FileLock {
 public:
  // Blocks while another holds it; calls `on_wait` once before it waits.
  static absl::StatusOr<FileLock> Acquire(const std::filesystem::path& path,
                                          const std::function<void()>& on_wait);
  FileLock(FileLock&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  FileLock(int fd, std::filesystem::path path)
      : fd_(fd), path_(std::move(path)) {}
  int fd_ = -1;
  std::filesystem::path path_;
};

}  // namespace bullpen
