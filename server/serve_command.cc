#include "server/serve_command.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/metrics.h"
#include "base/status.h"
#include "base/strings.h"
#include "server/grpc_server.h"
#include "server/http_server.h"
#include "server/local_session.h"
#include "server/service.h"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

constexpr double kMaxDrainSeconds = 24 * 3600;
constexpr int32_t kMaxQueue = 1 << 20;
constexpr int64_t kMaxBodyBytes = int64_t{1} << 30;
constexpr std::chrono::seconds kFlushTime(5);  // to write what is finished

// SIGTERM and SIGINT as a readable file descriptor. Made before any thread, so
// that all of them leave these signals to it.
class StopSignal {
 public:
  StopSignal() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    fd_ = signalfd(-1, &set_, SFD_CLOEXEC);
    CHECK(fd_ >= 0) << "no signalfd";
  }
  ~StopSignal() { close(fd_); }
  StopSignal(const StopSignal&) = delete;

  int fd() const { return fd_; }

  // From now on the next one ends the process at once, as it would without us.
  void LeaveToSystem() {
    signalfd_siginfo info;
    [[maybe_unused]] const ssize_t got = read(fd_, &info, sizeof(info));
    pthread_sigmask(SIG_UNBLOCK, &set_, nullptr);
  }

 private:
  sigset_t set_;
  int fd_ = -1;
};

absl::StatusOr<std::vector<std::string>> ReadKeys(
    const std::filesystem::path& path) {
  std::vector<std::string> keys;
  if (path.empty()) return keys;
  std::ifstream file(path);
  if (!file) {
    return absl::NotFoundError(
        absl::StrCat("--api-key-file: cannot read '", path.string(), "'"));
  }
  for (std::string line; std::getline(file, line);) {
    absl::StripAsciiWhitespace(&line);
    if (!line.empty() && line.front() != '#') keys.push_back(line);
  }
  // An empty file must not mean that everybody may come in.
  if (keys.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--api-key-file: '", path.string(), "' has no key in it"));
  }
  return keys;
}

absl::Status CheckFlags(const ServeFlags& flags) {
  if (!(flags.drain_timeout >= 0 && flags.drain_timeout <= kMaxDrainSeconds)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--drain-timeout must be at least 0 and at most ",
                     kMaxDrainSeconds, ", got ", flags.drain_timeout));
  }
  if (flags.max_queue < 1 || flags.max_queue > kMaxQueue) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-queue must be at least 1 and at most ", kMaxQueue,
                     ", got ", flags.max_queue));
  }
  if (flags.max_body.count < 1024 || flags.max_body.count > kMaxBodyBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-body must be at least 1KiB and at most 1GiB, got ",
                     flags.max_body.count));
  }
  return absl::OkStatus();
}

absl::Status WithFlag(const absl::Status& status, std::string_view flag) {
  if (status.ok()) return status;
  return absl::Status(
      status.code(),
      absl::StrCat(status.message(), "; choose another with ", Absl(flag)));
}

// A new name in `directory` for this run; empty if that is.
absl::StatusOr<std::filesystem::path> TracePath(
    const std::filesystem::path& directory) {
  if (directory.empty()) return std::filesystem::path();
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) {
    return absl::PermissionDeniedError(
        absl::StrCat("--record-routing: cannot make '", directory.string(),
                     "': ", error.message()));
  }
  const int64_t seconds =
      std::chrono::duration_cast<std::chrono::seconds>(
          std::chrono::system_clock::now().time_since_epoch())
          .count();
  return directory / absl::StrCat("routing-", seconds, "-", getpid(), ".trace");
}

// The two front ends, listening.
struct FrontEnds {
  std::unique_ptr<HttpServer> http;
  std::unique_ptr<GrpcServer> grpc;
};

absl::StatusOr<FrontEnds> Listen(const ServeFlags& flags,
                                 const std::string& version, Service& service) {
  ASSIGN_OR_RETURN(const std::vector<std::string> keys,
                   ReadKeys(flags.api_key_file));
  HttpConfig http;
  http.host = flags.host;
  http.port = flags.port;
  http.api_keys = keys;
  http.open_metrics = flags.open_metrics;
  http.version = version;
  GrpcConfig grpc;
  grpc.host = flags.host;
  grpc.port = flags.grpc_port;
  grpc.api_keys = keys;
  FrontEnds ends;
  absl::StatusOr<std::unique_ptr<HttpServer>> http_server =
      HttpServer::Listen(service, http);
  RETURN_IF_ERROR(WithFlag(http_server.status(), "--host or --port"));
  ends.http = *std::move(http_server);
  absl::StatusOr<std::unique_ptr<GrpcServer>> grpc_server =
      GrpcServer::Listen(service, grpc);
  RETURN_IF_ERROR(WithFlag(grpc_server.status(), "--host or --grpc-port"));
  ends.grpc = *std::move(grpc_server);
  return ends;
}

// Loads on a thread of its own, so that a signal is heard meanwhile. Nothing
// is lost by an exit in the middle of it: packing is atomic.
absl::StatusOr<LoadedModel> LoadUnlessStopped(const LoadOptions& options,
                                              Metrics& metrics,
                                              const StopSignal& stop) {
  absl::StatusOr<LoadedModel> loaded;
  const ReadyEvent ready;
  const std::jthread loader([&] {
    loaded = LoadForServing(options, metrics);
    ready.Set();
  });
  pollfd events[] = {{ready.fd(), POLLIN, 0}, {stop.fd(), POLLIN, 0}};
  while (poll(events, 2, -1) < 0) {
  }
  if (events[0].revents == 0) {
    spdlog::info("stopped while loading; nothing was running");
    std::_Exit(EXIT_SUCCESS);
  }
  return loaded;
}

void WaitFor(const StopSignal& stop) {
  pollfd event = {stop.fd(), POLLIN, 0};
  while (poll(&event, 1, -1) < 0) {
  }
}

void Drain(double seconds, Service& service, FrontEnds& ends) {
  spdlog::info("draining: no new work, up to {} s for what is running",
               seconds);
  ends.grpc->SetServing(false);
  service.SetDraining();
  Engine& engine = service.engine();
  const bool finished = engine.WaitDrained(
      Clock::now() + std::chrono::duration_cast<Clock::duration>(
                         std::chrono::duration<double>(seconds)));
  if (!finished) spdlog::warn("the time to drain was up; ended what was left");
  engine.Stop();
  const Clock::time_point flushed = Clock::now() + kFlushTime;
  ends.http->Shutdown(flushed);
  ends.grpc->Shutdown(flushed);
  spdlog::info("stopped");
}

}  // namespace

ServeCommand::ServeCommand(CLI::App& app, const Environment& environment,
                           Command& chosen)
    : version_(environment.version) {
  load_.model = environment.default_model;
  load_.flags.cache_dir = environment.cache_dir;
  flags_.python = environment.python;
  CLI::App* command = app.add_subcommand(
      "serve", "Serve a model over HTTP (OpenAI's API) and gRPC");
  command
      ->add_option("MODEL", load_.model,
                   "model directory, packed on first use; unset: the small "
                   "model that comes with bullpen")
      ->capture_default_str();
  AddFlags(*command, flags_, "Serving");
  AddFlags(*command, load_.flags, kModelFlagsGroup);
  command->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

absl::Status ServeCommand::Run() {
  RETURN_IF_ERROR(CheckFlags(flags_));
  RETURN_IF_ERROR(ToModelOptions(load_.flags).status());
  load_.name = flags_.served_model_name;
  load_.python = flags_.python;
  load_.max_queue = flags_.max_queue;
  ASSIGN_OR_RETURN(load_.record_routing, TracePath(flags_.record_routing));
  load_.record_token_ids = flags_.record_token_ids;
  std::signal(SIGPIPE, SIG_IGN);
  StopSignal stop;

  // Front ends go before the service that they borrow, and that one before the
  // metrics; the engine has been stopped by then.
  const Clock::time_point start = Clock::now();
  Metrics metrics;
  RequestLimits limits;
  limits.max_body_bytes = flags_.max_body.count;
  limits.max_choices = std::min(limits.max_choices,
                                flags_.max_queue + load_.flags.max_sequences);
  Service service(limits, metrics);
  ASSIGN_OR_RETURN(FrontEnds ends, Listen(flags_, version_, service));
  ASSIGN_OR_RETURN(LoadedModel loaded, LoadUnlessStopped(load_, metrics, stop));
  const Model& model = loaded.engine->model();
  spdlog::info("memory:\n{}", model.memory().Table());
  const std::string name = loaded.facts.id;
  const int32_t threads = model.threads();
  const std::string isa = absl::StrCat(Absl(model.isa()), ", activations ",
                                       Absl(model.activations()));
  const std::string kv_type = model.kv_type();
  const bool ipv6 = absl::StrContains(flags_.host, ":");
  const std::string host = ipv6 ? "[" + flags_.host + "]" : flags_.host;
  service.SetReady(std::move(loaded.engine), std::move(loaded.tokenizer),
                   std::move(loaded.chat), std::move(loaded.facts));
  ends.grpc->SetServing(true);
  spdlog::info(
      "ready: {} on http://{}:{} and grpc://{}:{} ({} threads, {}, KV "
      "cache {}), started in {:.2f} s",
      name, host, ends.http->port(), host, ends.grpc->port(), threads, isa,
      kv_type, std::chrono::duration<double>(Clock::now() - start).count());
  WaitFor(stop);
  stop.LeaveToSystem();
  Drain(flags_.drain_timeout, service, ends);
  return absl::OkStatus();
}

}  // namespace bullpen
