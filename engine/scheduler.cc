#include "engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace bullpen {
namespace {

bool NeverScheduled(const Sequence& sequence) {
  return sequence.scheduled == Clock::time_point();
}

void Append(Batch& batch, Sequence& sequence, int32_t rows) {
  const bool last = sequence.computed + rows == sequence.tokens();
  batch.items.push_back({.sequence = &sequence,
                         .first_position = sequence.computed,
                         .rows = rows,
                         .samples = last && sequence.request.max_tokens > 0});
  batch.rows += rows;
}

}  // namespace

int32_t Sequence::token(int32_t position) const {
  const int32_t prompt = static_cast<int32_t>(request.prompt.size());
  return position < prompt ? request.prompt[position]
                           : output[position - prompt];
}

std::optional<Finished> Sequence::EarlyEnd(Clock::time_point now) const {
  const TokenStream::Wish wish = stream->wish();
  if (wish == TokenStream::Wish::kStop) {
    return Finished{.reason = FinishReason::kStop};
  }
  if (wish == TokenStream::Wish::kCancel) {
    return Finished{.status = absl::CancelledError("cancelled")};
  }
  const std::optional<Clock::time_point> deadline = request.deadline;
  if (!deadline.has_value() || *deadline > now) return std::nullopt;
  const std::chrono::duration<double> allowed = *deadline - submitted;
  return Finished{
      .status = absl::DeadlineExceededError(absl::StrCat(
          "not finished within its deadline of ", allowed.count(), " s"))};
}

Scheduler::Scheduler(const SchedulerConfig& config, KvPool& pool)
    : config_(config), pool_(pool) {
  CHECK(config.max_batch_tokens > 0 && config.max_sequences > 0);
}

void Scheduler::Add(std::unique_ptr<Sequence> sequence) {
  waiting_.push_back(std::move(sequence));
  ++queued_;
}

Batch Scheduler::Plan(Clock::time_point now) {
  Batch batch;
  batch.items.reserve(config_.max_sequences);
  // A prompt takes rows only after every older one is complete, so in order of
  // arrival the decoding sequences come first by themselves.
  for (size_t i = 0; i < running_.size(); ++i) {
    const int32_t rows = RowsFor(*running_[i], batch);
    if (rows == 0) continue;
    if (!MakeRoom(i, rows)) break;
    Append(batch, *running_[i], rows);
  }
  // Who was just preempted stays out: others took some of its blocks.
  Admit(batch, now);
  return batch;
}

void Scheduler::Admit(Batch& batch, Clock::time_point now) {
  while (!waiting_.empty() && running() < config_.max_sequences &&
         batch.rows < config_.max_batch_tokens) {
    Sequence& next = *waiting_.front();
    if (!pool_.HasRoomFor(next.tokens())) return;
    if (NeverScheduled(next)) {
      next.scheduled = now;
      --queued_;
    }
    const int32_t rows = RowsFor(next, batch);
    CHECK(pool_.Extend(next.kv, rows));
    Append(batch, next, rows);
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

// Gets running_[index] the blocks for its next `rows`. False: it was itself
// the youngest and has been preempted.
bool Scheduler::MakeRoom(size_t index, int32_t rows) {
  Sequence& sequence = *running_[index];
  while (!pool_.Extend(sequence.kv, sequence.computed + rows)) {
    PreemptYoungest();
    if (running_.size() == index) return false;
  }
  return true;
}

void Scheduler::PreemptYoungest() {
  Sequence& youngest = *running_.back();
  pool_.FreeAll(youngest.kv);
  youngest.computed = 0;
  waiting_.push_front(std::move(running_.back()));
  running_.pop_back();
  ++preemptions_;
}

int32_t Scheduler::RowsFor(const Sequence& sequence, const Batch& batch) const {
  return std::min(sequence.tokens() - sequence.computed,
                  config_.max_batch_tokens - batch.rows);
}

void Scheduler::Commit(const Batch& batch) {
  for (const Batch::Item& item : batch.items) {
    Sequence& sequence = *item.sequence;
    sequence.computed += item.rows;
    CHECK(sequence.computed <= sequence.tokens());
    sequence.reached = std::max(sequence.reached, sequence.computed);
    pool_.FreePassed(sequence.kv, sequence.computed);
  }
}

std::unique_ptr<Sequence> Scheduler::Remove(Sequence* sequence) {
  std::unique_ptr<Sequence> removed;
  const auto is_it = [sequence](const std::unique_ptr<Sequence>& other) {
    return other.get() == sequence;
  };
  if (auto it = std::ranges::find_if(running_, is_it); it != running_.end()) {
    removed = std::move(*it);
    running_.erase(it);
  } else {
    auto queued = std::ranges::find_if(waiting_, is_it);
    CHECK(queued != waiting_.end()) << "a sequence that is not scheduled";
    removed = std::move(*queued);
    waiting_.erase(queued);
    if (NeverScheduled(*removed)) --queued_;
  }
  pool_.FreeAll(removed->kv);
  return removed;
}

std::vector<Sequence*> Scheduler::All() const {
  std::vector<Sequence*> all;
  all.reserve(running_.size() + waiting_.size());
  for (const auto& sequence : running_) all.push_back(sequence.get());
  for (const auto& sequence : waiting_) all.push_back(sequence.get());
  return all;
}

}  // namespace bullpen
