#include "bench/serve/grpc_transport.h"

#include <atomic>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "bullpen/v1/inference.grpc.pb.h"
#include "grpcpp/grpcpp.h"

namespace bullpen::bench {
namespace {

// What the threads of one run add to.
struct Results {
  absl::Mutex mutex;
  std::vector<StreamTimes> streams ABSL_GUARDED_BY(mutex);
  absl::Status status ABSL_GUARDED_BY(mutex);
};

absl::StatusOr<StreamTimes> Generate(v1::Inference::Stub& stub,
                                     const LoadConfig& config, int32_t index) {
  v1::GenerateRequest request;
  const std::vector<int32_t> ids = PromptIds(config, index);
  request.mutable_prompt_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  request.mutable_sampling()->set_temperature(0);
  request.set_max_tokens(config.max_tokens);
  request.set_ignore_eos(true);
  StreamTimes times{.sent = Clock::now()};
  grpc::ClientContext context;
  const auto reader = stub.Generate(&context, request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (response.tokens_size() == 0) continue;
    times.events.push_back(Clock::now());
    times.tokens += response.tokens_size();
  }
  const grpc::Status status = reader->Finish();
  if (status.ok()) return times;
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
}

class GrpcTransport final : public Transport {
 public:
  explicit GrpcTransport(const std::string& target)
      : stub_(v1::Inference::NewStub(
            grpc::CreateChannel(target, grpc::InsecureChannelCredentials()))) {}

  std::string_view name() const override { return "grpc"; }

  absl::StatusOr<LoadTimes> Run(const LoadConfig& config) override {
    Results results;
    std::atomic<int32_t> next{0};
    LoadTimes load{.begin = Clock::now()};
    {
      std::vector<std::jthread> threads;
      for (int32_t i = 0; i < config.parallel; ++i) {
        threads.emplace_back([&] { Work(config, next, results); });
      }
    }
    load.end = Clock::now();
    absl::MutexLock lock(&results.mutex);
    if (!results.status.ok()) return results.status;
    load.streams = std::move(results.streams);
    return load;
  }

 private:
  void Work(const LoadConfig& config, std::atomic<int32_t>& next,
            Results& results) {
    while (true) {
      const int32_t index = next.fetch_add(1);
      if (index >= config.requests) return;
      absl::StatusOr<StreamTimes> times = Generate(*stub_, config, index);
      absl::MutexLock lock(&results.mutex);
      if (!times.ok()) {
        results.status = times.status();
        return;
      }
      results.streams.push_back(*std::move(times));
    }
  }

  std::unique_ptr<v1::Inference::Stub> stub_;
};

}  // namespace

std::unique_ptr<Transport> MakeGrpcTransport(const std::string& target) {
  return std::make_unique<GrpcTransport>(target);
}

}  // namespace bullpen::bench
