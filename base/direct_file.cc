#include "base/direct_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file.h"

namespace bullpen {
namespace {

bool IsAligned(int64_t n) { return n % kDirectAlignment == 0; }

// pread that goes on after a signal.
int64_t ReadSome(int fd, std::span<std::byte> out, int64_t offset) {
  while (true) {
    const ssize_t got = pread(fd, out.data(), out.size(), offset);
    if (got >= 0 || errno != EINTR) return got;
  }
}

// Some file systems take O_DIRECT at open and refuse it at the first read.
bool TakesDirectReads(int fd) {
  alignas(kDirectAlignment) std::byte probe[kDirectAlignment];
  return ReadSome(fd, probe, 0) >= 0 || errno != EINVAL;
}

}  // namespace

absl::StatusOr<DirectFile> DirectFile::Open(const std::filesystem::path& path,
                                            Mode mode) {
  if (mode == Mode::kDirect) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (fd < 0 && errno != EINVAL) return SystemError("open", path, errno);
    if (fd >= 0 && TakesDirectReads(fd)) return DirectFile(fd, path, true);
    if (fd >= 0) close(fd);
  }
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return SystemError("open", path, errno);
  return DirectFile(fd, path, false);
}

DirectFile& DirectFile::operator=(DirectFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  std::swap(direct_, other.direct_);
  return *this;
}

DirectFile::~DirectFile() {
  if (fd_ >= 0) close(fd_);
}

absl::Status DirectFile::Read(int64_t offset, std::span<std::byte> out,
                              int64_t needed) const {
  const int64_t size = std::ssize(out);
  CHECK(IsAligned(offset) && IsAligned(size) && needed <= size &&
        IsAligned(static_cast<int64_t>(reinterpret_cast<uintptr_t>(out.data()) %
                                       kDirectAlignment)))
      << size << " bytes at " << offset << " to " << out.data();
  int64_t done = 0;
  while (done < needed) {
    int64_t got = ReadSome(fd_, out.subspan(done), offset + done);
    if (got < 0) {
      return absl::DataLossError(absl::StrCat("cannot read ", path_.string(),
                                              " at offset ", offset + done,
                                              ": ", std::strerror(errno)));
    }
    // A direct read goes on from aligned offsets only; but for the file's end,
    // what it gives is a multiple.
    if (direct_ && done + got < needed) got -= got % kDirectAlignment;
    if (got == 0) {
      return absl::DataLossError(
          absl::StrCat(path_.string(), " ends before offset ", offset + needed,
                       ", where the read from offset ", offset, " ends"));
    }
    done += got;
  }
  if (!direct_) posix_fadvise(fd_, offset, size, POSIX_FADV_DONTNEED);
  return absl::OkStatus();
}

}  // namespace bullpen
