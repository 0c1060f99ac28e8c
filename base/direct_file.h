#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bullpen {

// What O_DIRECT asks of offsets, sizes and addresses; a power of two that the
// logical blocks of disks divide.
inline constexpr int64_t kDirectAlignment = 4096;

// A file that is read past the page cache (O_DIRECT), so that reading costs no
// copy and drives nothing else out of memory. Where the file system has no
// such reads they are buffered, and what they leave in the page cache is
// dropped. Move-only.
class DirectFile {
 public:
  enum class Mode : uint8_t { kDirect, kBuffered };

  // kBuffered: as on a file system without O_DIRECT.
  static absl::StatusOr<DirectFile> Open(const std::filesystem::path& path,
                                         Mode mode = Mode::kDirect);

  DirectFile(DirectFile&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)),
        path_(std::move(other.path_)),
        direct_(other.direct_) {}
  DirectFile& operator=(DirectFile&& other) noexcept;
  ~DirectFile();

  // Fills `out` from `offset` on; both, and the address, are multiples of
  // kDirectAlignment. `out` may reach beyond the file's end, where it is left
  // as it is; DataLoss if that end comes before the first `needed` bytes, or
  // they cannot be read: it names the file and the offset. Any thread.
  absl::Status Read(int64_t offset, std::span<std::byte> out,
                    int64_t needed) const;

  bool direct() const { return direct_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  DirectFile(int fd, std::filesystem::path path, bool direct)
      : fd_(fd), path_(std::move(path)), direct_(direct) {}

  int fd_ = -1;
  std::filesystem::path path_;
  bool direct_ = false;
};

}  // namespace bullpen
