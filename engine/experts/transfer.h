#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <stop_token>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "engine/experts/blob_reader.h"
#include "engine/experts/expert.h"
#include "engine/experts/patience.h"

namespace bullpen {

enum class Cause : uint8_t { kDemand, kPrefetch };

// One copy of an expert from a slower place into a slot.
struct TransferJob {
  uint64_t ticket = 0;  // the caller's name for it
  ExpertLocation source;
  std::byte* target = nullptr;  // 4096-aligned
  int64_t bytes = 0;
  Cause cause = Cause::kDemand;
  bool verify = true;  // compare what was read with its checksum
};

struct TransferResult {
  uint64_t ticket = 0;
  // DataLoss: unreadable, or a wrong checksum. Cancelled: by Cancel.
  absl::Status status;
  int64_t bytes = 0;   // that were read
  double seconds = 0;  // from the first byte asked to the last one there
  Cause cause = Cause::kDemand;  // at its end: it may have been promoted
};

// A prefetch is read in such chunks: a demand waits for one in each thread.
int64_t GuessChunkBytes(int64_t blob_bytes);

struct TransferConfig {
  Link link = {};  // from where the reader reads to where the targets are
  int32_t threads = 2;
  int32_t capacity = 1024;  // jobs queued, running, or not yet polled
  // A multiple of 4096. Demands are read in chunks of this to four times this;
  // prefetches in none larger.
  int64_t chunk_bytes = int64_t{1} << 20;
};

// The transfer threads. They alone touch file handles; jobs and results cross
// in two bounded queues. All threads read chunks of the job that is first, so
// that jobs end one after the other and not all at last. Submit, Promote, Poll
// and Wait are for one thread (the engine's).
class TransferQueue {
 public:
  TransferQueue(BlobReader& reader, const TransferConfig& config);
  ~TransferQueue();  // Waits for the chunks that are being read, drops the
                     // rest.
  TransferQueue(const TransferQueue&) = delete;
  TransferQueue& operator=(const TransferQueue&) = delete;

  // ResourceExhausted when `capacity` jobs are under way. Demands go before
  // prefetches, and overtake a running prefetch at its next chunk.
  absl::Status Submit(const TransferJob& job);
  // A prefetch that is now needed becomes a demand. One that has ended, or is
  // a demand already, stays as it is.
  void Promote(uint64_t ticket);
  // What nobody wants any more is read no further: it ends, as Cancelled, with
  // the chunks that are being read. False, and it goes on: all of it was handed
  // out.
  bool Cancel(uint64_t ticket);
  // Moves finished jobs into `out` (appended). Wait blocks until at least one
  // is there, or `stop` is requested; CHECKs that something is under way.
  void Poll(std::vector<TransferResult>& out);
  void Wait(std::vector<TransferResult>& out, const std::stop_token& stop = {});
  // Jobs submitted whose results were not yet taken.
  int32_t under_way() const { return under_way_; }
  int32_t capacity() const { return config_.capacity; }
  const Link& link() const { return config_.link; }
  // Any thread: time in which at least one job was being read.
  double busy_seconds() const;
  // The same for demands, from Submit or Promote on.
  double demand_seconds() const;

 private:
  struct Work;
  // A part of a blob, for one thread to read.
  struct Chunk {
    Work* work = nullptr;
    int64_t begin = 0;  // in the blob
    int64_t size = 0;
  };
  using WorkQueue = std::deque<std::unique_ptr<Work>>;

  void Run();
  std::optional<Chunk> Take(Patience& patience);
  int64_t ChunkBytes(const Work& work) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Moves a work all of whose chunks were handed out, or that failed.
  void Leave(WorkQueue& queue, WorkQueue::iterator work)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A chunk was read, or bytes were hashed: how many the caller now has to
  // hash. 0: none, and the work is another thread's or is gone.
  int64_t EndRead(const Chunk& chunk, absl::Status status);
  int64_t EndHash(Work& work, int64_t bytes);
  int64_t NextToHash(Work& work) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void BeginDemand() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Finish(Work& work) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  BlobReader& reader_;
  const TransferConfig config_;
  int32_t under_way_ = 0;  // the caller's thread alone
  Patience patience_;      // the same

  mutable absl::Mutex mutex_;
  absl::CondVar work_there_;
  absl::CondVar result_there_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  // Those with chunks to hand out; the others that are under way.
  WorkQueue demands_ ABSL_GUARDED_BY(mutex_);
  WorkQueue prefetches_ ABSL_GUARDED_BY(mutex_);
  WorkQueue leaving_ ABSL_GUARDED_BY(mutex_);
  std::vector<TransferResult> results_ ABSL_GUARDED_BY(mutex_);
  int32_t started_ ABSL_GUARDED_BY(mutex_) = 0;   // and not finished
  int32_t demanded_ ABSL_GUARDED_BY(mutex_) = 0;  // and not finished
  std::chrono::steady_clock::duration demand_ ABSL_GUARDED_BY(mutex_) = {};
  std::chrono::steady_clock::time_point demand_since_ ABSL_GUARDED_BY(mutex_);
  std::chrono::steady_clock::duration busy_ ABSL_GUARDED_BY(mutex_) = {};
  std::chrono::steady_clock::time_point busy_since_ ABSL_GUARDED_BY(mutex_);
  // Sizes of the queues, to look at without the mutex.
  std::atomic<int32_t> queued_{0};
  std::atomic<int32_t> finished_{0};

  std::vector<std::jthread> threads_;  // last: they use all of the above
};

}  // namespace bullpen
