#include "engine/engine.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/flat_batch.h"
#include "engine/heartbeat.h"
#include "engine/kv_pool.h"
#include "engine/sampler.h"

namespace bullpen {
namespace {

constexpr std::chrono::milliseconds kSnapshotPeriod(200);

double Seconds(Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

bool IsSet(Clock::time_point time) { return time != Clock::time_point(); }

absl::Status ShuttingDown() {
  return absl::UnavailableError("the server is shutting down");
}

}  // namespace

// `mutex` guards what Submit, Drain and Stop share with the engine thread; all
// other data is the engine thread's.
struct Engine::State {
  State(std::unique_ptr<Model> the_model, const EngineConfig& the_config,
        Metrics& the_metrics);

  absl::Status Accept(std::vector<std::unique_ptr<Sequence>> sequences);

  // The engine thread.
  void Run();
  bool TakeArrivals();
  bool HasNews() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  void PublishQueue();
  void PublishSnapshot(Clock::time_point now);
  void Reap(Clock::time_point now);
  void Step(Clock::time_point now);
  absl::Status Proceed(const Batch& batch);
  void EndBatch(const Batch& batch, const absl::Status& status);
  void Sample(const Batch& batch, const ForwardResult& result);
  absl::Status GatherPromptLogprobs(const Batch& batch, size_t item,
                                    std::span<const float> logits);
  void Push(const Batch& batch, Clock::time_point now);
  void PushToken(Sequence& sequence, TokenEvent event, Clock::time_point now);
  void End(Sequence& sequence, Finished finished, Clock::time_point now);
  void EndAll(const absl::Status& status);
  void SetGauges();
  void Deliver();

  const std::unique_ptr<Model> model;
  const EngineConfig config;
  Metrics& metrics;
  const int32_t vocab;

  mutable absl::Mutex mutex;
  absl::CondVar news;     // HasNews() may have become true
  absl::CondVar drained;  // unfinished has become 0
  std::vector<std::unique_ptr<Sequence>> arrived ABSL_GUARDED_BY(mutex);
  int32_t queued ABSL_GUARDED_BY(mutex) = 0;  // accepted, not yet run
  // Places for running sequences that were free after the last Plan: the
  // first of a burst fill these and do not wait.
  int32_t free_places ABSL_GUARDED_BY(mutex) = config.max_sequences;
  int32_t unfinished ABSL_GUARDED_BY(mutex) = 0;  // accepted, no Finish yet
  bool draining ABSL_GUARDED_BY(mutex) = false;   // refuse new work
  bool aborting ABSL_GUARDED_BY(mutex) = false;   // and end all there is
  bool stopping ABSL_GUARDED_BY(mutex) = false;   // and leave the thread

  mutable absl::Mutex snapshot_mutex;
  CacheSnapshot snapshot ABSL_GUARDED_BY(snapshot_mutex);
  Clock::time_point snapshot_time;

  Heartbeat heartbeat;
  std::stop_source abort;  // with `aborting` or `stopping`: the step at hand

  struct Ended {
    std::unique_ptr<Sequence> sequence;
    Finished finished;
  };

  const int32_t step_rows;  // of one step, at most
  KvPool pool;
  const int32_t longest;  // tokens of a sequence
  Scheduler scheduler;
  Sampler sampler;
  FlatBatch flat;
  std::unique_ptr<RoutingRecorder> recorder;  // null: nothing is recorded
  int32_t next_number = 0;
  // Of the batch in work, by item: its next token, and what became of it.
  std::vector<std::optional<TokenEvent>> sampled;
  std::vector<absl::Status> item_status;
  std::vector<Ended> ended;  // out of the scheduler, Finish not yet given
  int64_t preemptions_counted = 0;

  std::once_flag joined;
  std::jthread thread;
};

Engine::State::State(std::unique_ptr<Model> the_model,
                     const EngineConfig& the_config, Metrics& the_metrics)
    : model(std::move(the_model)),
      config(the_config),
      metrics(the_metrics),
      vocab(model->config().vocab),
      snapshot(model->cache_snapshot()),
      step_rows(std::min(config.max_batch_tokens, model->max_batch_tokens())),
      pool(model->kv_groups(), step_rows),
      longest(std::min(model->context(), pool.longest())),
      scheduler({.max_batch_tokens = step_rows,
                 .max_sequences = config.max_sequences},
                pool),
      sampler(vocab) {
  metrics.kv_blocks_total.Set(pool.blocks());
  metrics.kv_bytes.Add({{"type", model->kv_type()}})
      .Set(static_cast<double>(model->memory().kv_bytes));
}

absl::Status Engine::State::Accept(
    std::vector<std::unique_ptr<Sequence>> sequences) {
  const int32_t count = static_cast<int32_t>(sequences.size());
  absl::MutexLock lock(&mutex);
  if (draining) {
    metrics.requests_rejected_unavailable.Increment(count);
    return ShuttingDown();
  }
  if (count > config.max_queue + free_places - queued) {
    metrics.requests_rejected_full.Increment(count);
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue is full: ", queued, " requests wait, and ",
                     count, " more would exceed max_queue ", config.max_queue));
  }
  queued += count;
  unfinished += count;
  metrics.requests_accepted.Increment(count);
  std::ranges::move(sequences, std::back_inserter(arrived));
  news.Signal();
  return absl::OkStatus();
}

void Engine::State::Run() {
  while (TakeArrivals()) {
    const Clock::time_point now = Clock::now();
    Reap(now);
    Deliver();
    Step(now);
    Deliver();
    if (now - snapshot_time >= kSnapshotPeriod) PublishSnapshot(now);
  }
}

bool Engine::State::HasNews() const { return !arrived.empty() || stopping; }

// Waits while there is nothing to do. False: the thread is to end.
bool Engine::State::TakeArrivals() {
  if (scheduler.empty()) PublishSnapshot(Clock::now());
  bool end_all = false;
  bool stop = false;
  {
    absl::MutexLock lock(&mutex);
    if (scheduler.empty() && !HasNews()) {
      heartbeat.Rest();
      while (!HasNews()) news.Wait(&mutex);
    }
    heartbeat.Beat();
    for (std::unique_ptr<Sequence>& sequence : arrived) {
      sequence->number = next_number++;
      scheduler.Add(std::move(sequence));
    }
    arrived.clear();
    end_all = aborting;
    stop = stopping;
  }
  if (end_all || stop) {
    EndAll(ShuttingDown());
    Deliver();
  }
  return !stop;
}

void Engine::State::PublishQueue() {
  absl::MutexLock lock(&mutex);
  queued = scheduler.queued() + static_cast<int32_t>(arrived.size());
  free_places = std::max(0, config.max_sequences - scheduler.running());
}

void Engine::State::PublishSnapshot(Clock::time_point now) {
  CacheSnapshot fresh = model->cache_snapshot();
  snapshot_time = now;
  absl::MutexLock lock(&snapshot_mutex);
  snapshot = std::move(fresh);
}

void Engine::State::Reap(Clock::time_point now) {
  for (Sequence* sequence : scheduler.All()) {
    std::optional<Finished> early = sequence->EarlyEnd(now);
    if (early.has_value()) End(*sequence, *std::move(early), now);
  }
}

void Engine::State::Step(Clock::time_point now) {
  const Batch batch = scheduler.Plan(now);
  PublishQueue();
  if (batch.empty()) return;
  flat.Assign(batch);
  if (recorder != nullptr) recorder->BeginStep(batch);
  SetGauges();
  ForwardBatch forward = flat.forward();
  forward.watch = {.progress = [&] { return Proceed(batch); },
                   .stop = abort.get_token()};
  absl::StatusOr<ForwardResult> result = model->Forward(forward);
  metrics.engine_steps.Increment();
  if (!result.ok()) {
    return EndBatch(batch,
                    abort.stop_requested() ? ShuttingDown() : result.status());
  }
  metrics.prompt_tokens.Increment(flat.prompt_rows());
  Sample(batch, *result);
  scheduler.Commit(batch);
  Push(batch, Clock::now());
}

// Steps take minutes where the disk is slow: they show life, and go on while
// anyone waits for them.
absl::Status Engine::State::Proceed(const Batch& batch) {
  heartbeat.Beat();
  const Clock::time_point now = Clock::now();
  for (const Batch::Item& item : batch.items) {
    if (!item.sequence->EarlyEnd(now).has_value()) return absl::OkStatus();
  }
  return absl::CancelledError("nobody waits for the step any more");
}

// This batch only, and who had an end of its own has that; the engine serves
// on.
void Engine::State::EndBatch(const Batch& batch, const absl::Status& status) {
  const Clock::time_point now = Clock::now();
  for (const Batch::Item& item : batch.items) {
    End(*item.sequence,
        item.sequence->EarlyEnd(now).value_or(Finished{.status = status}), now);
  }
}

// Draws the next token of each item that samples, and appends it.
void Engine::State::Sample(const Batch& batch, const ForwardResult& result) {
  sampled.assign(batch.items.size(), std::nullopt);
  item_status.assign(batch.items.size(), absl::OkStatus());
  for (size_t i = 0; i < batch.items.size(); ++i) {
    if (i < result.sequence_status.size()) {
      item_status[i] = result.sequence_status[i];
    }
    if (item_status[i].ok()) {
      item_status[i] = GatherPromptLogprobs(batch, i, result.logits);
    }
    if (!item_status[i].ok() || !batch.items[i].samples) continue;
    Sequence& sequence = *batch.items[i].sequence;
    const Request& request = sequence.request;
    const FlatBatch::ItemLogits& place = flat.logits_of(i);
    const std::span<const float> logits = result.logits.subspan(
        static_cast<size_t>(place.begin + place.prompt_count) * vocab, vocab);
    const int32_t id = sampler.Sample(
        logits, request.sampling, request.prompt, sequence.output,
        static_cast<int64_t>(sequence.output.size()));
    item_status[i] =
        CheckLogit(logits[id], request.prompt.size() + sequence.output.size());
    if (!item_status[i].ok()) continue;
    sampled[i] = request.logprobs.has_value()
                     ? sampler.Logprobs(logits, id, *request.logprobs)
                     : TokenEvent{.id = id};
    sequence.output.push_back(id);
  }
}

absl::Status Engine::State::GatherPromptLogprobs(
    const Batch& batch, size_t item, std::span<const float> logits) {
  Sequence& sequence = *batch.items[item].sequence;
  const Request& request = sequence.request;
  if (!request.prompt_logprobs || !sequence.output.empty()) {
    return absl::OkStatus();
  }
  std::vector<TokenEvent>& events = sequence.prompt_events;
  if (events.empty()) {
    events.reserve(request.prompt.size());
    events.push_back({.id = request.prompt[0]});
  }
  const FlatBatch::ItemLogits& place = flat.logits_of(item);
  for (int32_t i = 0; i < place.prompt_count; ++i) {
    const std::span<const float> row =
        logits.subspan(static_cast<size_t>(place.begin + i) * vocab, vocab);
    const size_t position = static_cast<size_t>(place.prompt_position) + i + 1;
    const int32_t next = request.prompt[position];
    RETURN_IF_ERROR(CheckLogit(row[next], position));
    events.push_back(sampler.Logprobs(row, next, request.logprobs.value_or(0)));
  }
  return absl::OkStatus();
}

// Gives each item's news to its stream and ends those that are done.
void Engine::State::Push(const Batch& batch, Clock::time_point now) {
  for (size_t i = 0; i < batch.items.size(); ++i) {
    Sequence& sequence = *batch.items[i].sequence;
    if (!item_status[i].ok()) {
      End(sequence, {.status = item_status[i]}, now);
      continue;
    }
    const bool prompt_done =
        sequence.computed >=
        static_cast<int32_t>(sequence.request.prompt.size());
    if (prompt_done && !sequence.prompt_events.empty()) {
      sequence.stream->PushPromptLogprobs(
          std::exchange(sequence.prompt_events, {}));
    }
    if (sampled[i].has_value()) {
      PushToken(sequence, *std::move(sampled[i]), now);
    } else if (prompt_done && sequence.request.max_tokens == 0) {
      End(sequence, {.reason = FinishReason::kLength}, now);
    }
  }
}

void Engine::State::PushToken(Sequence& sequence, TokenEvent event,
                              Clock::time_point now) {
  const Request& request = sequence.request;
  metrics.generated_tokens.Increment();
  if (!IsSet(sequence.first_token)) {
    sequence.first_token = now;
    metrics.first_token_seconds.Observe(Seconds(now - sequence.submitted));
  } else {
    metrics.inter_token_seconds.Observe(Seconds(now - sequence.last_token));
  }
  sequence.last_token = now;
  const int32_t id = event.id;
  if (std::ranges::find(request.stop_ids, id) != request.stop_ids.end()) {
    End(sequence, {.reason = FinishReason::kStop, .stop_id = id}, now);
    return;
  }
  sequence.stream->Push(std::move(event));
  if (sequence.output.size() >= static_cast<size_t>(request.max_tokens)) {
    End(sequence, {.reason = FinishReason::kLength}, now);
  }
}

// Takes the sequence out; `finished` has its reason, status and stop id.
void Engine::State::End(Sequence& sequence, Finished finished,
                        Clock::time_point now) {
  std::unique_ptr<Sequence> owned = scheduler.Remove(&sequence);
  const auto since_submit = [&owned](Clock::time_point time) {
    return Seconds(time - owned->submitted);
  };
  finished.prompt_tokens = static_cast<int32_t>(owned->request.prompt.size());
  finished.completion_tokens = static_cast<int32_t>(owned->output.size());
  finished.queue_seconds =
      since_submit(IsSet(owned->scheduled) ? owned->scheduled : now);
  finished.first_token_seconds =
      IsSet(owned->first_token) ? since_submit(owned->first_token) : 0;
  finished.total_seconds = since_submit(now);
  ended.push_back({std::move(owned), std::move(finished)});
}

void Engine::State::EndAll(const absl::Status& status) {
  const Clock::time_point now = Clock::now();
  for (Sequence* sequence : scheduler.All()) {
    End(*sequence, {.status = status}, now);
  }
}

void Engine::State::SetGauges() {
  metrics.requests_waiting.Set(scheduler.waiting());
  metrics.requests_running.Set(scheduler.running());
  metrics.kv_blocks_used.Set(pool.blocks() - pool.free_blocks());
  if (const int64_t total = scheduler.preemptions();
      total > preemptions_counted) {
    metrics.preemptions.Increment(
        static_cast<double>(total - preemptions_counted));
    preemptions_counted = total;
  }
}

// Hands out the Finish of all that ended. Metrics come first: whoever has seen
// a Finish sees the gauges without that request.
void Engine::State::Deliver() {
  if (ended.empty()) return;
  SetGauges();
  PublishQueue();
  for (const Ended& end : ended) {
    const Finished& finished = end.finished;
    prometheus::Counter& counter =
        finished.reason == FinishReason::kStop      ? metrics.finished_stop
        : finished.reason == FinishReason::kLength  ? metrics.finished_length
        : absl::IsCancelled(finished.status)        ? metrics.finished_cancelled
        : absl::IsDeadlineExceeded(finished.status) ? metrics.finished_deadline
                                                    : metrics.finished_error;
    counter.Increment();
    metrics.queue_seconds.Observe(finished.queue_seconds);
    metrics.request_seconds.Observe(finished.total_seconds);
  }
  for (Ended& end : ended) {
    end.sequence->stream->Finish(std::move(end.finished));
  }
  const int32_t count = static_cast<int32_t>(ended.size());
  ended.clear();
  absl::MutexLock lock(&mutex);
  unfinished -= count;
  if (unfinished == 0) drained.SignalAll();
}

Engine::Engine(std::unique_ptr<Model> model, const EngineConfig& config,
               Metrics& metrics)
    : state_(std::make_unique<State>(std::move(model), config, metrics)) {
  state_->thread = std::jthread([state = state_.get()] { state->Run(); });
}

Engine::~Engine() { Stop(); }

absl::Status Engine::Submit(std::vector<Submission> submissions) {
  std::vector<std::unique_ptr<Sequence>> sequences;
  sequences.reserve(submissions.size());
  const Clock::time_point now = Clock::now();
  for (Submission& submission : submissions) {
    CHECK(submission.stream != nullptr);
    RETURN_IF_ERROR(
        CheckFits(submission.request, state_->longest, state_->vocab));
    auto sequence = std::make_unique<Sequence>();
    sequence->request = std::move(submission.request);
    sequence->stream = std::move(submission.stream);
    sequence->submitted = now;
    sequences.push_back(std::move(sequence));
  }
  return state_->Accept(std::move(sequences));
}

void Engine::Record(std::unique_ptr<RoutingRecorder> recorder) {
  state_->model->set_tap(recorder->Tap());
  state_->recorder = std::move(recorder);
}

void Engine::Drain() {
  absl::MutexLock lock(&state_->mutex);
  state_->draining = true;
}

bool Engine::WaitDrained(Clock::time_point until) {
  State& s = *state_;
  absl::MutexLock lock(&s.mutex);
  s.draining = true;
  while (s.unfinished > 0 && Clock::now() < until) {
    s.drained.WaitWithTimeout(&s.mutex, absl::FromChrono(until - Clock::now()));
  }
  if (s.unfinished == 0) return true;
  s.aborting = true;
  s.abort.request_stop();
  while (s.unfinished > 0) s.drained.Wait(&s.mutex);
  return false;
}

void Engine::Stop() {
  {
    absl::MutexLock lock(&state_->mutex);
    state_->draining = true;
    state_->stopping = true;
    state_->abort.request_stop();
    state_->news.Signal();
  }
  std::call_once(state_->joined, [this] { state_->thread.join(); });
}

CacheSnapshot Engine::cache_snapshot() const {
  absl::MutexLock lock(&state_->snapshot_mutex);
  return state_->snapshot;
}

double Engine::seconds_since_heartbeat() const {
  return state_->heartbeat.silent_seconds();
}

const Model& Engine::model() const { return *state_->model; }

}  // namespace bullpen
