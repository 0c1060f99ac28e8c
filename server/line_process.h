#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bullpen {

// A child process that is talked to in lines over its standard input and
// output. It inherits no other file, is in a process group of its own (a
// terminal's Ctrl-C passes it by), and is killed and reaped with this object.
// One thread at a time.
class LineProcess {
 public:
  using Deadline = std::chrono::steady_clock::time_point;

  // FailedPrecondition: the program cannot be started. Does not wait for it.
  static absl::StatusOr<std::unique_ptr<LineProcess>> Spawn(
      const std::vector<std::string>& arguments);

  ~LineProcess();
  LineProcess(const LineProcess&) = delete;
  LineProcess& operator=(const LineProcess&) = delete;

  // False once the process has ended; it is reaped then.
  bool Running();
  pid_t pid() const { return pid_; }

  // DeadlineExceeded; Unavailable: the process has gone.
  absl::Status Send(std::string_view text, Deadline deadline);
  // A line without its end. Also ResourceExhausted: longer than max_bytes.
  absl::StatusOr<std::string> ReadLine(size_t max_bytes, Deadline deadline);

 private:
  LineProcess(pid_t pid, int socket) : pid_(pid), socket_(socket) {}
  absl::Status Wait(short events, Deadline deadline) const;

  pid_t pid_;  // -1: reaped
  int socket_;
  std::string received_;  // beyond the last line
};

}  // namespace bullpen
