#include "tests/fakes/fake_engine.h"

#include <list>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/check.h"

namespace bullpen {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);
// Cancel gives no signal: the fake looks for it this often.
constexpr absl::Duration kLook = absl::Milliseconds(1);

FakeEngineControl* next_control = nullptr;

struct Playing {
  FakeAnswer answer;
  std::shared_ptr<TokenStream> stream;
  size_t at = 0;
  int32_t prompt_tokens = 0;
  int32_t given = 0;
};

}  // namespace

struct FakeEngineAccess {
  static absl::Mutex& mutex(FakeEngineControl& control) {
    return control.mutex_;
  }
  static absl::Status Accept(
      FakeEngineControl& control, std::vector<Submission>& submissions,
      std::list<Playing>& playing) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (!control.refusal_.ok()) return control.refusal_;
    for (Submission& submission : submissions) {
      control.requests_.push_back(submission.request);
      ++control.unfinished_;
      playing.push_back({.answer = control.script_(submission.request),
                         .stream = std::move(submission.stream),
                         .prompt_tokens = static_cast<int32_t>(
                             submission.request.prompt.size())});
    }
    control.changed_.SignalAll();
    return absl::OkStatus();
  }
  // Waits for something to change, for a moment; the mutex is held.
  static void WaitMoment(FakeEngineControl& control)
      ABSL_NO_THREAD_SAFETY_ANALYSIS {
    control.changed_.WaitWithTimeout(&control.mutex_, kLook);
  }
  static void Ended(FakeEngineControl& control, bool cancelled) {
    absl::MutexLock lock(&control.mutex_);
    --control.unfinished_;
    if (cancelled) ++control.cancelled_;
    control.changed_.SignalAll();
  }
  static double HeartbeatAge(FakeEngineControl& control) {
    absl::MutexLock lock(&control.mutex_);
    return control.heartbeat_age_;
  }
};

void FakeEngineControl::SetScript(Script script) {
  absl::MutexLock lock(&mutex_);
  script_ = std::move(script);
}

void FakeEngineControl::RefuseWith(absl::Status status) {
  absl::MutexLock lock(&mutex_);
  refusal_ = std::move(status);
}

void FakeEngineControl::SetHeartbeatAge(double seconds) {
  absl::MutexLock lock(&mutex_);
  heartbeat_age_ = seconds;
}

bool FakeEngineControl::Await(const std::function<bool()>& condition) const {
  const absl::Time deadline = absl::Now() + kPatience;
  absl::MutexLock lock(&mutex_);
  while (!condition()) {
    if (changed_.WaitWithDeadline(&mutex_, deadline)) return condition();
  }
  return true;
}

bool FakeEngineControl::AwaitIdle() const {
  return Await([this] {
    mutex_.AssertHeld();
    return unfinished_ == 0;
  });
}

bool FakeEngineControl::AwaitAccepted(int64_t count) const {
  return Await([this, count] {
    mutex_.AssertHeld();
    return static_cast<int64_t>(requests_.size()) >= count;
  });
}

int64_t FakeEngineControl::accepted() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int64_t>(requests_.size());
}

int64_t FakeEngineControl::cancelled() const {
  absl::MutexLock lock(&mutex_);
  return cancelled_;
}

std::vector<Request> FakeEngineControl::requests() const {
  absl::MutexLock lock(&mutex_);
  return requests_;
}

struct Engine::State {
  explicit State(FakeEngineControl& hand) : control(hand) {
    thread = std::jthread([this](std::stop_token stop) { Play(stop); });
  }

  void Play(std::stop_token stop) {
    std::list<Playing> mine;
    while (!stop.stop_requested()) {
      {
        absl::MutexLock lock(&FakeEngineAccess::mutex(control));
        if (arrived.empty()) FakeEngineAccess::WaitMoment(control);
        mine.splice(mine.end(), arrived);
      }
      std::erase_if(mine, [this](Playing& playing) { return Step(playing); });
    }
    absl::MutexLock lock(&FakeEngineAccess::mutex(control));
    mine.splice(mine.end(), arrived);
    for (Playing& playing : mine) {
      playing.stream->Finish({.status = absl::UnavailableError("stopped")});
    }
  }

  // Gives one token or the end; whether it was the end.
  bool Step(Playing& playing) {
    FakeAnswer& answer = playing.answer;
    if (playing.stream->wish() == TokenStream::Wish::kStop) {
      return End(playing, {.reason = FinishReason::kStop});
    }
    if (playing.stream->wish() == TokenStream::Wish::kCancel) {
      return End(playing, {.status = absl::CancelledError("cancelled")});
    }
    if (!answer.prompt.empty()) {
      playing.stream->PushPromptLogprobs(std::exchange(answer.prompt, {}));
    }
    if (answer.endless && playing.at == answer.tokens.size()) playing.at = 0;
    if (playing.at < answer.tokens.size()) {
      ++playing.given;
      playing.stream->Push(answer.tokens[playing.at++]);
      return false;
    }
    if (answer.hold) return false;
    return End(playing, {.reason = answer.status.ok() ? answer.reason
                                                      : FinishReason::kError,
                         .status = answer.status});
  }

  bool End(Playing& playing, Finished finished) {
    finished.prompt_tokens = playing.prompt_tokens;
    finished.completion_tokens = playing.given;
    const bool cancelled = absl::IsCancelled(finished.status);
    playing.stream->Finish(std::move(finished));
    FakeEngineAccess::Ended(control, cancelled);
    return true;
  }

  FakeEngineControl& control;
  std::list<Playing> arrived;  // under the control's mutex
  std::jthread thread;
};

Engine::Engine(std::unique_ptr<Model>, const EngineConfig&, Metrics&)
    : state_(std::make_unique<State>(*std::exchange(next_control, nullptr))) {}

Engine::~Engine() { Stop(); }

absl::Status Engine::Submit(std::vector<Submission> submissions) {
  absl::MutexLock lock(&FakeEngineAccess::mutex(state_->control));
  return FakeEngineAccess::Accept(state_->control, submissions,
                                  state_->arrived);
}

void Engine::Record(std::unique_ptr<RoutingRecorder>) {}

void Engine::Drain() {}

bool Engine::WaitDrained(Clock::time_point) {
  return state_->control.AwaitIdle();
}

void Engine::Stop() {
  state_->thread.request_stop();
  if (state_->thread.joinable()) state_->thread.join();
}

CacheSnapshot Engine::cache_snapshot() const {
  CacheSnapshot snapshot{.arena_bytes = 8192,
                         .loads = 3,
                         .load_failures = 2,
                         .bytes_loaded = 6144,
                         .stall_seconds = 0.5};
  snapshot.layers.push_back({.experts = 8,
                             .slots = 4,
                             .slot_bytes = 2048,
                             .lookups = 10,
                             .hits = 7,
                             .resident = {1, 5},
                             .loading = {3},
                             .scores = {2.5f, 0.5f}});
  return snapshot;
}

double Engine::seconds_since_heartbeat() const {
  return FakeEngineAccess::HeartbeatAge(state_->control);
}

const Model& Engine::model() const {
  CHECK(false) << "the fake engine has no model";
  std::abort();
}

std::unique_ptr<Engine> MakeFakeEngine(FakeEngineControl& control,
                                       Metrics& metrics) {
  CHECK(next_control == nullptr) << "one fake engine at a time";
  next_control = &control;
  return std::make_unique<Engine>(nullptr, EngineConfig{}, metrics);
}

}  // namespace bullpen
