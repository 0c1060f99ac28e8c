#include "tools/bench/engine_run.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/status.h"
#include "tools/bench/roofs.h"

namespace bullpen {
namespace {

// Steps of a window: long enough to level out single ones.
constexpr size_t kWindowSteps = 8;

// The engine's clocks at the moment when a stream's token came.
struct Moment {
  Clock::time_point time;
  double kernel_seconds = 0;
};

// Receives the streams of one round. Engine thread writes, the caller waits.
class Receiver {
 public:
  Receiver(const Model& model, int32_t streams)
      : model_(model), left_(streams), tokens_(static_cast<size_t>(streams)) {}

  std::shared_ptr<TokenStream> NewStream() {
    const size_t index = streams_.size();
    streams_.push_back(
        std::make_shared<TokenStream>([this, index] { OnReady(index); }));
    return streams_.back();
  }

  // For each stream, when its tokens came.
  absl::StatusOr<std::vector<std::vector<Moment>>> Wait() {
    absl::MutexLock lock(&mutex_);
    while (left_ > 0) done_.Wait(&mutex_);
    if (!status_.ok()) return status_;
    return std::move(tokens_);
  }

 private:
  void OnReady(size_t index) {
    const TokenStream::Batch batch = streams_[index]->Take();
    const Moment now{.time = Clock::now(),
                     .kernel_seconds = model_.kernel_seconds()};
    absl::MutexLock lock(&mutex_);
    tokens_[index].insert(tokens_[index].end(), batch.tokens.size(), now);
    if (!batch.finished.has_value()) return;
    if (!batch.finished->status.ok()) status_ = batch.finished->status;
    if (--left_ == 0) done_.Signal();
  }

  const Model& model_;
  std::vector<std::shared_ptr<TokenStream>> streams_;
  absl::Mutex mutex_;
  absl::CondVar done_;
  int32_t left_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::vector<Moment>> tokens_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<std::vector<std::vector<Moment>>> Round(Engine& engine,
                                                       const EngineWork& work) {
  const int32_t vocab = engine.model().config().vocab;
  Receiver receiver(engine.model(), work.sequences);
  std::vector<Submission> submissions;
  for (int32_t s = 0; s < work.sequences; ++s) {
    Request request;
    for (int32_t i = 0; i < work.prompt_tokens; ++i) {
      request.prompt.push_back((i * 97 + s * 31 + 11) % vocab);
    }
    request.sampling.temperature = 0;
    request.max_tokens = work.decode_tokens;
    submissions.push_back({std::move(request), receiver.NewStream()});
  }
  RETURN_IF_ERROR(engine.Submit(std::move(submissions)));
  return receiver.Wait();
}

// Looks at windows of the last stream to begin, which is done while no other
// has ended more than a step ago.
void TakeBest(const std::vector<std::vector<Moment>>& streams,
              EngineSpeed& best) {
  const std::vector<Moment>& last = *std::ranges::max_element(
      streams, {}, [](const std::vector<Moment>& s) { return s.front().time; });
  const Clock::time_point end =
      std::ranges::min_element(
          streams, {},
          [](const std::vector<Moment>& s) { return s.back().time; })
          ->back()
          .time;
  const std::chrono::duration<double> all = last.back().time - last[0].time;
  best.mean_tokens_per_second =
      static_cast<double>(streams.size() * (last.size() - 1)) / all.count();
  for (size_t i = 0; i + kWindowSteps < last.size(); ++i) {
    const Moment& from = last[i];
    const Moment& to = last[i + kWindowSteps];
    const double seconds =
        std::chrono::duration<double>(to.time - from.time).count();
    if (to.time > end && streams.size() > 1) continue;
    if (seconds >= best.step_seconds * kWindowSteps) continue;
    const double inside = to.kernel_seconds - from.kernel_seconds;
    best.step_seconds = seconds / kWindowSteps;
    best.outside_seconds = std::max(0.0, seconds - inside) / kWindowSteps;
    best.tokens_per_second =
        static_cast<double>(streams.size()) / best.step_seconds;
  }
}

}  // namespace

absl::StatusOr<EngineSpeed> RunEngine(Engine& engine, const EngineWork& work,
                                      double seconds) {
  EngineSpeed best;
  best.step_seconds = std::numeric_limits<double>::infinity();
  const Clock::time_point start = Clock::now();
  const std::chrono::duration<double> least(seconds);
  // Experts come into memory in the first round.
  for (int round = 0; round < 2 || Clock::now() - start < least; ++round) {
    ASSIGN_OR_RETURN(const auto streams, Round(engine, work));
    TakeBest(streams, best);
  }
  if (best.tokens_per_second > 0) return best;
  return absl::FailedPreconditionError(absl::StrCat(
      "requests of ", work.decode_tokens, " tokens are too short to measure ",
      work.sequences, " at a time"));
}

}  // namespace bullpen
