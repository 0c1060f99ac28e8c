#include "engine/experts/blob_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

constexpr int64_t kAlignment = 4096;

// An open file. Move-only.
class OpenFile {
 public:
  OpenFile() = default;
  explicit OpenFile(int fd) : fd_(fd) {}
  OpenFile(OpenFile&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OpenFile& operator=(OpenFile&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~OpenFile() {
    if (fd_ >= 0) close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_ = -1;
};

absl::Status Lost(const std::string& path, int64_t offset, int error) {
  return absl::DataLossError(absl::StrCat("cannot read ", path, " at offset ",
                                          offset, ": ", std::strerror(error)));
}

// pread that goes on after a signal.
int64_t ReadSome(int fd, std::span<std::byte> out, int64_t offset) {
  while (true) {
    const ssize_t got = pread(fd, out.data(), out.size(), offset);
    if (got >= 0 || errno != EINTR) return got;
  }
}

// Some file systems take O_DIRECT at open and refuse it at the first read.
bool TakesDirectReads(int fd) {
  alignas(kAlignment) std::byte probe[kAlignment];
  return ReadSome(fd, probe, 0) >= 0 || errno != EINVAL;
}

class FileBlobReader final : public BlobReader {
 public:
  static absl::StatusOr<std::unique_ptr<BlobReader>> Open(
      const std::vector<std::string>& paths) {
    auto reader = std::make_unique<FileBlobReader>();
    for (const std::string& path : paths) {
      RETURN_IF_ERROR(reader->Add(path));
    }
    return reader;
  }

  absl::Status Read(int32_t file, int64_t offset,
                    std::span<std::byte> out) override {
    CHECK(file >= 0 && file < static_cast<int32_t>(sources_.size())) << file;
    const Source& source = sources_[file];
    const int64_t size = static_cast<int64_t>(out.size());
    int64_t done = 0;
    while (done < size) {
      int64_t got =
          ReadSome(source.file.fd(), out.subspan(done), offset + done);
      if (got < 0) return Lost(source.path, offset + done, errno);
      // A direct read goes on from aligned offsets only; but for the file's
      // end, what it gives is a multiple.
      if (source.direct && got < size - done) got -= got % kAlignment;
      if (got == 0) {
        return absl::DataLossError(
            absl::StrCat(source.path, " ends before offset ", offset + size,
                         ", where the read from offset ", offset, " ends"));
      }
      done += got;
    }
    if (!source.direct) {
      // The arena is the cache: a second copy would fall out of the budget.
      posix_fadvise(source.file.fd(), offset, size, POSIX_FADV_DONTNEED);
    }
    return absl::OkStatus();
  }

 private:
  struct Source {
    std::string path;
    OpenFile file;
    bool direct = true;
  };

  absl::Status Add(const std::string& path) {
    Source source;
    source.path = path;
    source.file = OpenFile(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
    if (source.file.fd() < 0 ? errno == EINVAL
                             : !TakesDirectReads(source.file.fd())) {
      source.direct = false;
      source.file = OpenFile(open(path.c_str(), O_RDONLY | O_CLOEXEC));
      if (!warned_) {
        spdlog::warn(
            "{}: this file system has no O_DIRECT; experts are read through "
            "the page cache, which is slower",
            path);
        warned_ = true;
      }
    }
    if (source.file.fd() < 0) {
      return absl::DataLossError(
          absl::StrCat("cannot open ", path, ": ", std::strerror(errno)));
    }
    sources_.push_back(std::move(source));
    return absl::OkStatus();
  }

  std::vector<Source> sources_;
  bool warned_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<BlobReader>> OpenBlobFiles(
    const std::vector<std::string>& paths) {
  return FileBlobReader::Open(paths);
}

}  // namespace bullpen
