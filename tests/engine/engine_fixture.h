#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/metrics.h"
#include "engine/engine.h"
#include "tests/fakes/fake_model.h"

namespace bullpen {

// The server's side of one request: gathers all that its stream gives.
class Reader {
 public:
  Reader() : stream_(std::make_shared<TokenStream>([this] { OnReady(); })) {}
  Reader(const Reader&) = delete;

  const std::shared_ptr<TokenStream>& stream() { return stream_; }

  // Waits for the end.
  const Finished& Wait() {
    absl::MutexLock lock(&mutex_);
    while (!IsFinished()) changed_.Wait(&mutex_);
    return *got_.finished;
  }
  void AwaitTokens(size_t count) {
    absl::MutexLock lock(&mutex_);
    while (got_.tokens.size() < count && !IsFinished()) changed_.Wait(&mutex_);
  }

  std::vector<int32_t> ids() {
    absl::MutexLock lock(&mutex_);
    std::vector<int32_t> ids;
    for (const TokenEvent& event : got_.tokens) ids.push_back(event.id);
    return ids;
  }
  std::vector<TokenEvent> tokens() {
    absl::MutexLock lock(&mutex_);
    return got_.tokens;
  }
  std::vector<TokenEvent> prompt() {
    absl::MutexLock lock(&mutex_);
    return got_.prompt;
  }

 private:
  bool IsFinished() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return got_.finished.has_value();
  }

  void OnReady() {
    TokenStream::Batch batch = stream_->Take();
    absl::MutexLock lock(&mutex_);
    for (TokenEvent& event : batch.prompt) got_.prompt.push_back(event);
    for (TokenEvent& event : batch.tokens) got_.tokens.push_back(event);
    if (batch.finished.has_value()) got_.finished = batch.finished;
    changed_.SignalAll();
  }

  absl::Mutex mutex_;
  absl::CondVar changed_;
  TokenStream::Batch got_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<TokenStream> stream_;
};

// An engine over the fake model.
struct EngineFixture {
  explicit EngineFixture(const FakeModelConfig& model = {},
                         const EngineConfig& config = {})
      : engine(MakeFakeModel(model, control), config, metrics) {}

  absl::Status Submit(Request request, Reader& reader) {
    std::vector<Submission> submissions;
    submissions.push_back({std::move(request), reader.stream()});
    return engine.Submit(std::move(submissions));
  }

  // All gauges as before the first request.
  bool AtBaseLine() const {
    return metrics.requests_waiting.Value() == 0 &&
           metrics.requests_running.Value() == 0 &&
           metrics.kv_blocks_used.Value() == 0;
  }

  Metrics metrics;
  FakeModelControl control;
  Engine engine;
};

// `count` tokens that differ by `salt`.
inline std::vector<int32_t> MakePrompt(int32_t count, int32_t salt = 0) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < count; ++i)
    ids.push_back((i * 7 + salt * 5 + 3) % 60);
  return ids;
}

inline Request Greedy(std::vector<int32_t> prompt, int32_t max_tokens) {
  return {.prompt = std::move(prompt),
          .sampling = {.temperature = 0},
          .max_tokens = max_tokens};
}

}  // namespace bullpen
