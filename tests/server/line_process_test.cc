#include "server/line_process.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "gtest/gtest.h"

namespace bullpen {
namespace {

LineProcess::Deadline In(int milliseconds) {
  return std::chrono::steady_clock::now() +
         std::chrono::milliseconds(milliseconds);
}

std::unique_ptr<LineProcess> Shell(const std::string& script) {
  auto process = LineProcess::Spawn({"sh", "-c", script});
  EXPECT_TRUE(process.ok()) << process.status();
  return *std::move(process);
}

TEST(LineProcessTest, AnswersLineByLine) {
  const auto process = Shell("while read x; do echo \"got $x\"; done");
  ASSERT_TRUE(process->Send("a\nb\n", In(5000)).ok());
  EXPECT_EQ(*process->ReadLine(100, In(5000)), "got a");
  EXPECT_EQ(*process->ReadLine(100, In(5000)), "got b");
}

TEST(LineProcessTest, InheritsNoOtherFile) {
  const int leaked = open("/dev/null", O_RDONLY);  // not close-on-exec
  const auto process = Shell("[ -e /proc/self/fd/" + std::to_string(leaked) +
                             " ] && echo leaked || echo closed");
  EXPECT_EQ(*process->ReadLine(100, In(5000)), "closed");
  close(leaked);
}

TEST(LineProcessTest, ASilentProcessIsADeadline) {
  const auto process = Shell("read x; read x");
  EXPECT_TRUE(
      absl::IsDeadlineExceeded(process->ReadLine(100, In(20)).status()));
}

TEST(LineProcessTest, ALongLineIsRefused) {
  const auto process = Shell("exec cat /dev/zero");
  EXPECT_TRUE(
      absl::IsResourceExhausted(process->ReadLine(1 << 20, In(5000)).status()));
}

TEST(LineProcessTest, AnEndedProcessIsUnavailableAndReaped) {
  const auto process = Shell("exit 3");
  EXPECT_TRUE(absl::IsUnavailable(process->ReadLine(100, In(5000)).status()));
  // No SIGPIPE either.
  EXPECT_TRUE(absl::IsUnavailable(process->Send("x\n", In(5000))));
}

TEST(LineProcessTest, DestructionKillsAndReaps) {
  pid_t pid = 0;
  {
    const auto process = Shell("read x; read x");
    pid = process->pid();
    EXPECT_TRUE(process->Running());
  }
  EXPECT_EQ(waitpid(pid, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST(LineProcessTest, AProgramThatDoesNotExistIsAnError) {
  EXPECT_EQ(LineProcess::Spawn({"/nonexistent/program"}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace bullpen
