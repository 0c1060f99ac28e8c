#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "engine/kv_pool.h"
#include "engine/request.h"
#include "engine/token_stream.h"

namespace bullpen {

struct SchedulerConfig {
  int32_t max_batch_tokens = 256;  // rows of one step
  int32_t max_sequences = 8;       // running at a time
};

// A request's life in the engine. tokens = prompt + output; `computed` of them
// are in the KV blocks.
struct Sequence {
  int32_t number = 0;  // of its request, in the order in which they came
  Request request;
  std::shared_ptr<TokenStream> stream;
  std::vector<int32_t> output;
  std::vector<KvTable> kv;  // of each group of layers; none: not running
  int32_t computed = 0;
  int32_t reached = 0;  // the most that `computed` ever was
  Clock::time_point submitted;
  Clock::time_point scheduled;    // first time in a batch; epoch = never
  Clock::time_point first_token;  // epoch = none yet
  Clock::time_point last_token;
  std::vector<TokenEvent> prompt_events;  // gathered for prompt_logprobs

  int32_t tokens() const {
    return static_cast<int32_t>(request.prompt.size() + output.size());
  }
  int32_t token(int32_t position) const;
  // How it ends before it is complete, if its client or its deadline wants it.
  std::optional<Finished> EarlyEnd(Clock::time_point now) const;
};

// The rows of one step. Decode rows (one a sequence) come first, then prompt
// chunks.
struct Batch {
  struct Item {
    Sequence* sequence = nullptr;
    int32_t first_position = 0;
    int32_t rows = 0;
    bool samples = false;  // its last row's logits give the next token
  };
  std::vector<Item> items;
  int32_t rows = 0;
  bool empty() const { return items.empty(); }
};

// Which sequences get how many rows of the next step. Pure: no clock, no
// threads; time is passed in. First come, first served; decode before
// prefill; a prompt is cut into chunks that fit max_batch_tokens; a sequence
// starts when the KV blocks for all of its tokens so far are free, so that no
// prompt is begun that must be thrown away at once; blocks that have left the
// window of their layers go back after each step; when KV blocks run out,
// the youngest running sequence gives its blocks back and waits at the head of
// the queue (its tokens are computed again later). The oldest sequence always
// advances, provided that it fits the pool alone.
class Scheduler {
 public:
  Scheduler(const SchedulerConfig& config, KvPool& pool);

  void Add(std::unique_ptr<Sequence> sequence);
  Batch Plan(Clock::time_point now);
  // After the step: the rows of each item are in its KV blocks; the caller has
  // appended the next token to the output of each item that samples.
  void Commit(const Batch& batch);
  // Takes a sequence out (finished, failed, cancelled); frees its blocks.
  std::unique_ptr<Sequence> Remove(Sequence* sequence);
  // All sequences, running then waiting, for cancellation and deadlines.
  std::vector<Sequence*> All() const;

  int32_t running() const { return static_cast<int32_t>(running_.size()); }
  int32_t waiting() const { return static_cast<int32_t>(waiting_.size()); }
  // Waiting and never in a batch yet; the rest of waiting() was preempted.
  int32_t queued() const { return queued_; }
  bool empty() const { return running_.empty() && waiting_.empty(); }
  int64_t preemptions() const { return preemptions_; }

 private:
  void Admit(Batch& batch, Clock::time_point now);
  bool MakeRoom(size_t index, int32_t rows);
  void PreemptYoungest();
  int32_t RowsFor(const Sequence& sequence, const Batch& batch) const;

  SchedulerConfig config_;
  KvPool& pool_;
  // running_ and then waiting_ is the order of arrival, always: only the
  // youngest running one goes back, and only the oldest waiting one comes in.
  std::vector<std::unique_ptr<Sequence>> running_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  int32_t queued_ = 0;
  int64_t preemptions_ = 0;
};

}  // namespace bullpen
