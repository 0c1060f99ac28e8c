#include "server/line_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "base/status.h"
#include "base/strings.h"

namespace bullpen {
namespace {

constexpr size_t kReadBytes = size_t{1} << 16;

std::string ErrorText(int error) {
  char buffer[128];
  return strerror_r(error, buffer, sizeof(buffer));
}

// The settings of one posix_spawn call, freed with it.
class SpawnSettings {
 public:
  explicit SpawnSettings(int socket) {
    posix_spawn_file_actions_init(&files_);
    posix_spawn_file_actions_adddup2(&files_, socket, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files_, socket, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&files_, STDERR_FILENO, "/dev/null",
                                     O_WRONLY, 0);
    posix_spawn_file_actions_addclosefrom_np(&files_, STDERR_FILENO + 1);
    posix_spawnattr_init(&attributes_);
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setpgroup(&attributes_, 0);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK |
                                               POSIX_SPAWN_SETSIGDEF |
                                               POSIX_SPAWN_SETPGROUP);
  }
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&files_);
    posix_spawnattr_destroy(&attributes_);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  const posix_spawn_file_actions_t* files() const { return &files_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t files_;
  posix_spawnattr_t attributes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LineProcess>> LineProcess::Spawn(
    const std::vector<std::string>& arguments) {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("socketpair: ", ErrorText(errno)));
  }
  std::vector<char*> argv;
  for (const std::string& argument : arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  // A Python of a virtual environment finds itself through PATH.
  const char* path = std::getenv("PATH");
  std::string path_entry = "PATH=";
  path_entry.append(path == nullptr ? "/usr/bin:/bin" : path);
  char* environment[] = {path_entry.data(), nullptr};
  const SpawnSettings settings(sockets[1]);
  pid_t pid = -1;
  const int error =
      posix_spawnp(&pid, argv[0], settings.files(), settings.attributes(),
                   argv.data(), environment);
  close(sockets[1]);
  if (error != 0) {
    close(sockets[0]);
    return absl::FailedPreconditionError(
        absl::StrCat("cannot run '", arguments[0], "': ", ErrorText(error)));
  }
  return std::unique_ptr<LineProcess>(new LineProcess(pid, sockets[0]));
}

LineProcess::~LineProcess() {
  close(socket_);
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

bool LineProcess::Running() {
  if (pid_ >= 0 && waitpid(pid_, nullptr, WNOHANG) != 0) pid_ = -1;
  return pid_ >= 0;
}

absl::Status LineProcess::Wait(short events, Deadline deadline) const {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return absl::DeadlineExceededError("time-out");
    const auto wait_ms = static_cast<int>(
        std::min<int64_t>(left.count(), std::numeric_limits<int>::max()));
    pollfd poll_fd{.fd = socket_, .events = events, .revents = 0};
    if (poll(&poll_fd, 1, wait_ms) > 0) return absl::OkStatus();
  }
}

absl::Status LineProcess::Send(std::string_view text, Deadline deadline) {
  while (!text.empty()) {
    RETURN_IF_ERROR(Wait(POLLOUT, deadline));
    const ssize_t sent =
        send(socket_, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      text.remove_prefix(static_cast<size_t>(sent));
    } else if (errno != EAGAIN && errno != EINTR) {
      return absl::UnavailableError(ErrorText(errno));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> LineProcess::ReadLine(size_t max_bytes,
                                                  Deadline deadline) {
  size_t searched = 0;
  while (true) {
    const size_t end = received_.find('\n', searched);
    if (end != std::string::npos) {
      std::string line = received_.substr(0, end);
      received_.erase(0, end + 1);
      return line;
    }
    searched = received_.size();
    if (searched > max_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("more than ", max_bytes, " bytes"));
    }
    RETURN_IF_ERROR(Wait(POLLIN, deadline));
    received_.resize(searched + kReadBytes);
    const ssize_t count =
        recv(socket_, received_.data() + searched, kReadBytes, MSG_DONTWAIT);
    const int error = errno;
    received_.resize(searched +
                     static_cast<size_t>(std::max<ssize_t>(count, 0)));
    if (count > 0 || (count < 0 && (error == EAGAIN || error == EINTR))) {
      continue;
    }
    return absl::UnavailableError("the process has ended");
  }
}

}  // namespace bullpen
