#include "base/direct_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/file.h"
#include "base/status.h"
#include "base/strings.h"

namespace bullpen {
namespace {

constexpr int kBuffers = 3;
// Enough for a disk to reach its rate, and for the next to be made meanwhile.
constexpr int64_t kBufferBytes = int64_t{8} << 20;

int64_t RoundUp(int64_t n) {
  return (n + kDirectAlignment - 1) / kDirectAlignment * kDirectAlignment;
}

int64_t RoundDown(int64_t n) { return n / kDirectAlignment * kDirectAlignment; }

// False if the file system cannot.
bool SetDirect(int fd, bool direct) {
  const int flags = fcntl(fd, F_GETFL);
  const int with = direct ? flags | O_DIRECT : flags & ~O_DIRECT;
  return flags >= 0 && fcntl(fd, F_SETFL, with) == 0;
}

// 0, also where a file system cannot reserve; or the error.
int Reserve(int fd, int64_t bytes) {
  while (bytes > 0 && fallocate(fd, 0, 0, bytes) != 0) {
    if (errno == EINTR) continue;
    return errno == EOPNOTSUPP || errno == ENOSYS ? 0 : errno;
  }
  return 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DirectWriter>> DirectWriter::Create(
    const std::filesystem::path& path, int64_t bytes, DirectFile::Mode mode) {
  const int fd =
      open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return SystemError("create", path, errno);
  std::unique_ptr<DirectWriter> writer(new DirectWriter(fd, path, bytes));
  if (const int error = Reserve(fd, bytes); error != 0) {
    return SystemError(absl::StrCat("reserve ", FormatBytes(bytes), " for"),
                       path, error);
  }
  const int64_t capacity =
      std::clamp(RoundUp(bytes), kDirectAlignment, kBufferBytes);
  ASSIGN_OR_RETURN(writer->filling_.memory, HugeBuffer::Allocate(capacity));
  absl::MutexLock lock(&writer->mutex_);
  writer->direct_ = mode == DirectFile::Mode::kDirect && SetDirect(fd, true);
  writer->free_.resize(kBuffers - 1);
  writer->thread_ = std::jthread([raw = writer.get()] { raw->Run(); });
  return writer;
}

DirectWriter::DirectWriter(int fd, std::filesystem::path path, int64_t bytes)
    : fd_(fd), path_(std::move(path)), bytes_(bytes) {}

DirectWriter::~DirectWriter() {
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }
  if (thread_.joinable()) thread_.join();
  close(fd_);
}

absl::StatusOr<std::span<std::byte>> DirectWriter::Room(int64_t bytes) {
  CHECK(lent_ == 0) << lent_ << " bytes were not committed";
  if (filling_.filled + bytes > filling_.memory.size()) {
    RETURN_IF_ERROR(HandOver(bytes, false));
  }
  lent_ = bytes;
  return filling_.memory.span().subspan(static_cast<size_t>(filling_.filled),
                                        static_cast<size_t>(bytes));
}

absl::Status DirectWriter::Commit() {
  filling_.filled += std::exchange(lent_, 0);
  CHECK(filling_.begin + filling_.filled <= bytes_)
      << path_ << " is longer than the " << bytes_ << " bytes that were said";
  if (filling_.filled < kBufferBytes) return absl::OkStatus();
  return HandOver(0, false);
}

absl::Status DirectWriter::Append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t some =
        std::min(bytes.size(), static_cast<size_t>(kBufferBytes / 2));
    ASSIGN_OR_RETURN(const std::span<std::byte> room,
                     Room(static_cast<int64_t>(some)));
    std::memcpy(room.data(), bytes.data(), some);
    RETURN_IF_ERROR(Commit());
    bytes = bytes.subspan(some);
  }
  return absl::OkStatus();
}

absl::Status DirectWriter::HandOver(int64_t bytes, bool all) {
  Buffer next;
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &DirectWriter::HasFree));
    RETURN_IF_ERROR(status_);
    next = std::move(free_.back());
    free_.pop_back();
  }
  const int64_t whole = all ? filling_.filled : RoundDown(filling_.filled);
  const int64_t rest = filling_.filled - whole;
  const int64_t needed =
      std::max(filling_.memory.size(), RoundUp(rest + bytes));
  if (next.memory.size() < needed) {
    next.memory = HugeBuffer();  // Given back before the larger one is taken.
    ASSIGN_OR_RETURN(next.memory, HugeBuffer::Allocate(needed));
  }
  next.begin = filling_.begin + whole;
  next.filled = rest;
  std::memcpy(next.memory.data(), filling_.memory.data() + whole,
              static_cast<size_t>(rest));
  filling_.filled = whole;
  absl::MutexLock lock(&mutex_);
  full_.push_back(std::exchange(filling_, std::move(next)));
  return absl::OkStatus();
}

bool DirectWriter::Idle() const {
  return static_cast<int>(free_.size()) == kBuffers - 1;
}

absl::Status DirectWriter::Finish() {
  CHECK(filling_.begin + filling_.filled == bytes_)
      << path_ << " has " << filling_.begin + filling_.filled
      << " bytes, not the " << bytes_ << " that were said";
  if (filling_.filled > 0) RETURN_IF_ERROR(HandOver(0, true));
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &DirectWriter::Idle));
  RETURN_IF_ERROR(status_);
  if (fsync(fd_) != 0) return SystemError("sync", path_, errno);
  // Of buffered writes; they would drive out what others use.
  posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED);
  return absl::OkStatus();
}

void DirectWriter::Run() {
  while (true) {
    Buffer buffer;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &DirectWriter::HasWork));
      if (closed_) return;
      buffer = std::move(full_.front());
      full_.pop_front();
    }
    const absl::Status written =
        WriteAll(buffer.memory.span().first(static_cast<size_t>(buffer.filled)),
                 buffer.begin);
    absl::MutexLock lock(&mutex_);
    status_.Update(written);
    free_.push_back(std::move(buffer));
  }
}

absl::Status DirectWriter::WriteAll(std::span<const std::byte> bytes,
                                    int64_t offset) {
  const int64_t whole = RoundDown(std::ssize(bytes));
  RETURN_IF_ERROR(Write(bytes.first(static_cast<size_t>(whole)), offset));
  const std::span<const std::byte> rest =
      bytes.subspan(static_cast<size_t>(whole));
  if (rest.empty()) return absl::OkStatus();
  // The file's end, less than a block, is no direct write.
  direct_ = direct_ && !SetDirect(fd_, false);
  return Write(rest, offset + whole);
}

absl::Status DirectWriter::Write(std::span<const std::byte> bytes,
                                 int64_t offset) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put = pwrite(fd_, bytes.data() + done, bytes.size() - done,
                               offset + static_cast<int64_t>(done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && errno == EINVAL && direct_) {
      // Taken at first and refused now, as some file systems do.
      direct_ = !SetDirect(fd_, false);
      if (!direct_) continue;
    }
    if (put < 0) {
      return SystemError(
          absl::StrCat("write at byte ", offset + static_cast<int64_t>(done),
                       " of"),
          path_, errno);
    }
    done += static_cast<size_t>(put);
  }
  return absl::OkStatus();
}

}  // namespace bullpen
