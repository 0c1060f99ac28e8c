#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <string>
#include <system_error>

#include "CLI/CLI.hpp"
#include "absl/synchronization/mutex.h"
#include "server/chat_command.h"
#include "server/generate_command.h"
#include "server/log_setup.h"
#include "server/serve_command.h"
#include "tools/analyze_command.h"
#include "tools/bench/bench_command.h"
#include "tools/logits_command.h"
#include "tools/options.h"
#include "tools/pack_command.h"
#include "tools/perplexity_command.h"
#include "tools/plan_command.h"
#include "tools/replay_command.h"
#include "tools/tokenize_command.h"
#include "tools/trace_command.h"

namespace bullpen {
namespace {

constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kBadInput = 2;

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::filesystem::path CacheDir() {
  if (const std::string xdg = Variable("XDG_CACHE_HOME"); !xdg.empty()) {
    return std::filesystem::path(xdg) / "bullpen";
  }
  if (const std::string home = Variable("HOME"); !home.empty()) {
    return std::filesystem::path(home) / ".cache" / "bullpen";
  }
  std::error_code error;
  return std::filesystem::temp_directory_path(error) / "bullpen";
}

// The installed model if there is one, else the source tree's.
std::filesystem::path DefaultModel() {
  std::error_code error;
  const std::filesystem::path executable =
      std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path installed =
      executable.parent_path().parent_path() / "share/bullpen/models/default";
  if (std::filesystem::exists(installed, error)) return installed;
  return std::filesystem::path(BULLPEN_SOURCE_DIR) / "models/default";
}

// The interpreter that the build prepared if it is there, else the system's.
std::string Python() {
  std::error_code error;
  const std::string prepared = BULLPEN_PYTHON;
  return std::filesystem::exists(prepared, error) ? prepared : "python3";
}

int ExitCode(const absl::Status& status) {
  if (status.ok()) return kDone;
  const bool bad_input =
      absl::IsInvalidArgument(status) || absl::IsNotFound(status);
  return bad_input ? kBadInput : kFailed;
}

// The one place where a command that asks for too much memory ends.
absl::Status Run(const Command& command) {
  try {
    return command();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  }
}

int Main(int argc, char** argv) {
#ifdef NDEBUG
  // Debian builds Abseil without NDEBUG: unless told otherwise it looks for
  // cycles at each lock of ours and of gRPC's, and aborts when it finds one,
  // though nobody waits.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
#endif
  const Environment environment{.version = BULLPEN_VERSION,
                                .default_model = DefaultModel(),
                                .cache_dir = CacheDir(),
                                .python = Python()};
  CLI::App app(
      "Bullpen serves Mixture-of-Experts language models whose experts do not "
      "all fit in fast memory.",
      "bullpen");
  app.set_version_flag("--version", "bullpen " + environment.version);
  app.require_subcommand(1);
  app.fallthrough();
  app.get_formatter()->column_width(28);
  app.footer(
      "bullpen COMMAND --help tells the rest; --log-level and --log-format may "
      "stand after any command.\n"
      "Exit code: 0 done, 1 failed, 2 bad usage or bad input.");
  std::string log_level = "info";
  std::string log_format = "text";
  app.add_option("--log-level", log_level,
                 "trace, debug, info, warn, error or off")
      ->capture_default_str();
  app.add_option("--log-format", log_format,
                 "text for people, json for machines: one object a line")
      ->capture_default_str();
  Command chosen;
  ServeCommand serve(app, environment, chosen);
  GenerateCommand generate(app, environment, chosen);
  ChatCommand chat(app, environment, chosen);
  PackCommand pack(app, environment, chosen);
  TokenizeCommand tokenize(app, environment, chosen);
  LogitsCommand logits(app, environment, chosen);
  PerplexityCommand perplexity(app, environment, chosen);
  ReplayCommand replay(app, chosen);
  TraceCommand trace(app, chosen);
  AnalyzeCommand analyze(app, chosen);
  PlanCommand plan(app, environment, chosen);
  BenchCommand bench(app, environment, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == kDone ? kDone : kBadInput;
  }
  absl::Status status = SetUpLog(log_level, log_format);
  if (status.ok()) status = Run(chosen);
  if (!status.ok()) {
    std::fprintf(stderr, "bullpen: %s\n",
                 std::string(status.message()).c_str());
  }
  return ExitCode(status);
}

}  // namespace
}  // namespace bullpen

int main(int argc, char** argv) { return bullpen::Main(argc, argv); }
