// Measures a running server; prints JSON. bench/README.md says how to read it.

#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"
#include "base/status.h"
#include "bench/serve/grpc_transport.h"
#include "bench/serve/http_transport.h"
#include "bench/serve/summary.h"

namespace bullpen::bench {
namespace {

struct Flags {
  std::string url;
  std::string grpc;
  std::vector<int32_t> parallel = {1, 8};
  LoadConfig load;
};

absl::StatusOr<std::vector<std::unique_ptr<Transport>>> Transports(
    const Flags& flags) {
  std::vector<std::unique_ptr<Transport>> transports;
  if (!flags.url.empty()) {
    ASSIGN_OR_RETURN(auto http, MakeHttpTransport(flags.url));
    transports.push_back(std::move(http));
  }
  if (!flags.grpc.empty()) transports.push_back(MakeGrpcTransport(flags.grpc));
  return transports;
}

absl::Status Measure(const Flags& flags) {
  nlohmann::json runs = nlohmann::json::array();
  ASSIGN_OR_RETURN(const auto transports, Transports(flags));
  for (const std::unique_ptr<Transport>& transport : transports) {
    for (const int32_t parallel : flags.parallel) {
      LoadConfig config = flags.load;
      config.parallel = parallel;
      config.requests = flags.load.requests * parallel;
      LoadConfig warm_up = config;
      warm_up.requests = parallel;
      RETURN_IF_ERROR(transport->Run(warm_up).status());
      ASSIGN_OR_RETURN(const LoadTimes times, transport->Run(config));
      runs.push_back(Summarize(transport->name(), config, times));
    }
  }
  const nlohmann::json report = {{"cpu", CpuName()},
                                 {"cpus", std::thread::hardware_concurrency()},
                                 {"runs", std::move(runs)}};
  std::printf("%s\n", report.dump(2).c_str());
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Measures streamed generation: rates, first tokens, gaps.");
  app.add_option("--url", flags.url, "HTTP server: http://HOST:PORT");
  app.add_option("--grpc", flags.grpc, "gRPC server: HOST:PORT");
  app.add_option("--parallel", flags.parallel, "streams at a time, run by run")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--requests", flags.load.requests, "per stream of each run")
      ->capture_default_str()
      ->check(CLI::Range(1, 100'000));
  app.add_option("--prompt-tokens", flags.load.prompt_tokens)
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--max-tokens", flags.load.max_tokens)
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  CLI11_PARSE(app, argc, argv);
  if (flags.url.empty() && flags.grpc.empty()) {
    std::fprintf(stderr, "error: give --url, --grpc or both\n");
    return 2;
  }
  const absl::Status status = Measure(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "error: %s\n", status.ToString().c_str());
  return 1;
}

}  // namespace
}  // namespace bullpen::bench

int main(int argc, char** argv) { return bullpen::bench::Main(argc, argv); }
