#include "bench/engine/engine_run.h"

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/status.h"

namespace bullpen::bench {
namespace {

// Receives the streams of one repeat.
class Receiver {
 public:
  explicit Receiver(int32_t streams) : left_(streams) {}

  std::shared_ptr<TokenStream> NewStream() {
    const size_t index = streams_.size();
    streams_.push_back(
        std::make_shared<TokenStream>([this, index] { OnReady(index); }));
    return streams_.back();
  }

  absl::StatusOr<std::vector<Clock::time_point>> Wait() {
    absl::MutexLock lock(&mutex_);
    while (left_ > 0) done_.Wait(&mutex_);
    if (!status_.ok()) return status_;
    return std::move(tokens_);
  }

 private:
  void OnReady(size_t index) {
    const TokenStream::Batch batch = streams_[index]->Take();
    absl::MutexLock lock(&mutex_);
    tokens_.insert(tokens_.end(), batch.tokens.size(), Clock::now());
    if (!batch.finished.has_value()) return;
    if (!batch.finished->status.ok()) status_ = batch.finished->status;
    if (--left_ == 0) done_.Signal();
  }

  std::vector<std::shared_ptr<TokenStream>> streams_;
  absl::Mutex mutex_;
  absl::CondVar done_;
  int32_t left_ ABSL_GUARDED_BY(mutex_);
  std::vector<Clock::time_point> tokens_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<Steps> RunOnce(Engine& engine, const Workload& workload) {
  Receiver receiver(workload.batch);
  std::vector<Submission> submissions;
  for (int32_t s = 0; s < workload.batch; ++s) {
    Request request;
    request.prompt = PromptIds(workload, s, engine.model().config().vocab);
    request.sampling.temperature = 0;
    request.max_tokens = workload.decode_tokens;
    submissions.push_back({std::move(request), receiver.NewStream()});
  }
  Steps steps;
  steps.begin = Clock::now();
  RETURN_IF_ERROR(engine.Submit(std::move(submissions)));
  ASSIGN_OR_RETURN(steps.tokens, receiver.Wait());
  return steps;
}

}  // namespace

absl::StatusOr<Best> RunEngine(Engine& engine, const Workload& workload) {
  std::vector<Steps> repeats;
  for (int32_t i = 0; i < workload.repeats; ++i) {
    ASSIGN_OR_RETURN(Steps steps, RunOnce(engine, workload));
    repeats.push_back(std::move(steps));
  }
  return BestOf(repeats, workload.batch);
}

}  // namespace bullpen::bench
