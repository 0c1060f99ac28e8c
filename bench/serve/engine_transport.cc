#include "bench/serve/engine_transport.h"

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/metrics.h"
#include "base/status.h"
#include "engine/engine.h"
#include "engine/model/packed_model.h"

namespace bullpen::bench {
namespace {

// The generations of one run: filled on the engine thread, awaited by ours.
class Generations {
 public:
  explicit Generations(int32_t count) : streams_(count), times_(count) {}

  // Hands request `index` to the engine.
  absl::Status Submit(Engine& engine, Request request, int32_t index) {
    times_[index].sent = Clock::now();
    streams_[index] =
        std::make_shared<TokenStream>([this, index] { Receive(index); });
    std::vector<Submission> submissions;
    submissions.push_back({std::move(request), streams_[index]});
    return engine.Submit(std::move(submissions));
  }

  void AwaitFinished(int32_t count) {
    const auto enough = [this, count] {
      mutex_.AssertReaderHeld();
      return finished_ >= count;
    };
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&enough));
  }

  absl::StatusOr<std::vector<StreamTimes>> TakeTimes() {
    absl::MutexLock lock(&mutex_);
    if (!status_.ok()) return status_;
    return std::move(times_);
  }

 private:
  // Engine thread.
  void Receive(int32_t index) {
    const TokenStream::Batch batch = streams_[index]->Take();
    StreamTimes& times = times_[index];
    if (!batch.tokens.empty()) times.events.push_back(Clock::now());
    times.tokens += static_cast<int64_t>(batch.tokens.size());
    if (!batch.finished.has_value()) return;
    absl::MutexLock lock(&mutex_);
    if (!batch.finished->status.ok()) status_ = batch.finished->status;
    ++finished_;
  }

  std::vector<std::shared_ptr<TokenStream>> streams_;
  std::vector<StreamTimes> times_;
  absl::Mutex mutex_;
  int32_t finished_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

class EngineTransport final : public Transport {
 public:
  EngineTransport(std::unique_ptr<Model> model, const EngineConfig& config,
                  std::unique_ptr<Metrics> metrics)
      : metrics_(std::move(metrics)),
        engine_(std::move(model), config, *metrics_) {}

  std::string_view name() const override { return "engine"; }

  absl::StatusOr<LoadTimes> Run(const LoadConfig& config) override {
    Generations generations(config.requests);
    LoadTimes load;
    load.begin = Clock::now();
    for (int32_t index = 0; index < config.requests; ++index) {
      generations.AwaitFinished(index - config.parallel + 1);
      Request request;
      request.prompt = PromptIds(config, index);
      request.sampling.temperature = 0;
      request.max_tokens = config.max_tokens;
      const absl::Status accepted =
          generations.Submit(engine_, std::move(request), index);
      if (!accepted.ok()) {
        generations.AwaitFinished(index);  // The engine still fills them.
        return accepted;
      }
    }
    generations.AwaitFinished(config.requests);
    load.end = Clock::now();
    ASSIGN_OR_RETURN(load.streams, generations.TakeTimes());
    return load;
  }

 private:
  std::unique_ptr<Metrics> metrics_;
  Engine engine_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> MakeEngineTransport(
    const std::filesystem::path& packed, int32_t threads) {
  auto metrics = std::make_unique<Metrics>();
  ASSIGN_OR_RETURN(PackedModel weights, PackedModel::Open(packed));
  ASSIGN_OR_RETURN(std::unique_ptr<Model> model,
                   Model::Load(std::move(weights),
                               {.threads = threads, .memory = {}}, *metrics));
  return std::make_unique<EngineTransport>(std::move(model), EngineConfig{},
                                           std::move(metrics));
}

}  // namespace bullpen::bench
