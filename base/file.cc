#include "base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/status.h"
#include "base/strings.h"

namespace bullpen {
namespace {

// Linux moves at most this much in one read or write.
constexpr size_t kMaxTransfer = size_t{1} << 30;

absl::StatusCode CodeOf(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::StatusCode::kNotFound;
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return absl::StatusCode::kResourceExhausted;
    case EEXIST:
      return absl::StatusCode::kAlreadyExists;
    case ELOOP:
      return absl::StatusCode::kFailedPrecondition;
    case EIO:
      return absl::StatusCode::kDataLoss;
    default:
      return absl::StatusCode::kUnknown;
  }
}

// A file that is not there, or a link whose file is not: who may do without a
// file must not take a broken link for none.
absl::Status OpenError(const std::filesystem::path& path, int error) {
  std::error_code ignored;
  if (error != ENOENT || !std::filesystem::is_symlink(path, ignored)) {
    return SystemError("open", path, error);
  }
  return absl::FailedPreconditionError(
      absl::StrCat("cannot open ", path.string(), ": it is a link to ",
                   std::filesystem::read_symlink(path, ignored).string(),
                   ", which is not "
                   "there"));
}

}  // namespace

absl::Status SystemError(std::string_view verb,
                         const std::filesystem::path& path, int error) {
  return absl::Status(CodeOf(error),
                      absl::StrCat("cannot ", Absl(verb), " ", path.string(),
                                   ": ", std::strerror(error)));
}

absl::StatusOr<File> File::OpenForRead(const std::filesystem::path& path) {
  // O_NONBLOCK: a pipe in the place of a file must not hang the open.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return OpenError(path, errno);
  File file(fd, path, 0);
  struct stat info;
  if (fstat(fd, &info) != 0) return SystemError("stat", path, errno);
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path.string(), " is not a regular file"));
  }
  file.size_ = info.st_size;
  return file;
}

absl::StatusOr<File> File::Create(const std::filesystem::path& path) {
  const int fd =
      open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return SystemError("create", path, errno);
  return File(fd, path, 0);
}

File& File::operator=(File&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  std::swap(size_, other.size_);
  return *this;
}

File::~File() {
  if (fd_ >= 0) close(fd_);
}

absl::Status File::ReadAt(int64_t offset, std::span<std::byte> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t got =
        pread(fd_, out.data() + done, std::min(out.size() - done, kMaxTransfer),
              offset + static_cast<int64_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SystemError("read", path_, errno);
    if (got == 0) {
      return absl::DataLossError(absl::StrCat(
          path_.string(), " ends at byte ", offset + done, "; ", out.size(),
          " bytes were to be read from byte ", offset));
    }
    done += static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

absl::Status File::Append(std::span<const std::byte> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put = write(fd_, bytes.data() + done,
                              std::min(bytes.size() - done, kMaxTransfer));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return SystemError("write", path_, errno);
    done += static_cast<size_t>(put);
    size_ += put;
  }
  return absl::OkStatus();
}

absl::Status File::Sync() {
  if (fsync(fd_) != 0) return SystemError("sync", path_, errno);
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path,
                                     int64_t limit) {
  ASSIGN_OR_RETURN(const File file, File::OpenForRead(path));
  if (file.size() > limit) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path.string(), " has ", file.size(),
                     " bytes, more than the limit of ", limit));
  }
  std::string bytes(static_cast<size_t>(file.size()), '\0');
  RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(bytes))));
  return bytes;
}

absl::Status WriteNewFile(const std::filesystem::path& path,
                          std::string_view bytes) {
  ASSIGN_OR_RETURN(File file, File::Create(path));
  RETURN_IF_ERROR(file.Append(std::as_bytes(std::span(bytes))));
  return file.Sync();
}

absl::Status SyncDirectory(const std::filesystem::path& directory) {
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return SystemError("open", directory, errno);
  const int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  // Some file systems cannot sync a directory; they say EINVAL.
  if (error != 0 && error != EINVAL)
    return SystemError("sync", directory, error);
  return absl::OkStatus();
}

absl::StatusOr<FileLock> FileLock::Acquire(
    const std::filesystem::path& path, const std::function<void()>& on_wait) {
  bool told = false;
  while (true) {
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return SystemError("create the lock", path, errno);
    FileLock lock(fd, path);
    int got = flock(fd, LOCK_EX | LOCK_NB);
    if (got != 0 && errno == EWOULDBLOCK) {
      if (!told && on_wait) on_wait();
      told = true;
      do {
        got = flock(fd, LOCK_EX);
      } while (got != 0 && errno == EINTR);
    }
    struct stat mine;
    struct stat named;
    if (got != 0 || fstat(fd, &mine) != 0) {
      const int error = errno;
      lock.path_.clear();  // Not ours to remove.
      return SystemError("lock", path, error);
    }
    // The holder before us removed the file: then this lock guards nothing.
    if (stat(path.c_str(), &named) == 0 && named.st_ino == mine.st_ino &&
        named.st_dev == mine.st_dev) {
      return lock;
    }
    lock.path_.clear();
  }
}

FileLock::~FileLock() {
  if (fd_ < 0) return;
  if (!path_.empty()) unlink(path_.c_str());  // Before the lock is given back.
  close(fd_);
}

}  // namespace bullpen
