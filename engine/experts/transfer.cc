#include "engine/experts/transfer.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/time_slice.h"
#include "base/xxh3.h"

namespace bullpen {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Nothing overtakes a demand, so it may read so many chunks at a time: fewer
// calls, as long as every thread has a part.
constexpr int64_t kDemandChunks = 4;

// Asking for the next chunk takes microseconds, for which the disk waits while
// the CPUs are busy with threads that compute.
constexpr std::chrono::microseconds kTimeSlice{100};

absl::Status Verify(const XXH3_state_t& hash, const ExpertLocation& source) {
  const uint64_t checksum = XXH3_64bits_digest(&hash);
  if (checksum == source.checksum) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("wrong checksum at offset ", source.offset, ": ",
                   absl::Hex(checksum, absl::kZeroPad16), " instead of ",
                   absl::Hex(source.checksum, absl::kZeroPad16)));
}

}  // namespace

// Guarded by the queue's mutex. While `hashing`, the thread that hashes owns
// `hash` and may read `done`.
struct TransferQueue::Work {
  TransferJob job;
  int64_t handed_out = 0;    // bytes, from the front
  int32_t reading = 0;       // chunks
  std::vector<Chunk> read;   // and not hashed yet
  absl::Status status = {};  // of the first chunk that failed
  SteadyClock::time_point started = {};
  bool hashing = false;
  int64_t done = 0;  // bytes: hashed, from the front, or read if that is all
  XXH3_state_t hash = {};
};

int64_t GuessChunkBytes(int64_t blob_bytes) {
  // Smaller ones are slower to read than what a demand saves.
  constexpr int64_t kLeast = int64_t{256} << 10;
  constexpr int64_t kMost = int64_t{1} << 20;
  return std::min(blob_bytes,
                  std::clamp(blob_bytes / 4 / 4096 * 4096, kLeast, kMost));
}

TransferQueue::TransferQueue(BlobReader& reader, const TransferConfig& config)
    : reader_(reader), config_(config) {
  CHECK(config.threads >= 1 && config.capacity >= 1);
  CHECK(config.chunk_bytes > 0 && config.chunk_bytes % 4096 == 0)
      << config.chunk_bytes;
  for (int32_t i = 0; i < config.threads; ++i) {
    threads_.emplace_back([this] { Run(); });
  }
}

TransferQueue::~TransferQueue() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  queued_.store(1, std::memory_order_relaxed);
  work_there_.SignalAll();
}

absl::Status TransferQueue::Submit(const TransferJob& job) {
  CHECK(job.bytes > 0 && job.bytes % 4096 == 0) << job.bytes;
  CHECK(reinterpret_cast<uintptr_t>(job.target) % 4096 == 0);
  if (under_way_ >= config_.capacity) {
    return absl::ResourceExhaustedError(
        absl::StrCat(under_way_, " transfers are under way, the limit is ",
                     config_.capacity));
  }
  auto work = std::make_unique<Work>();
  work->job = job;
  XXH3_64bits_reset(&work->hash);
  ++under_way_;
  absl::MutexLock lock(&mutex_);
  if (job.cause == Cause::kDemand) {
    BeginDemand();
    demands_.push_back(std::move(work));
  } else {
    prefetches_.push_back(std::move(work));
  }
  queued_.fetch_add(1, std::memory_order_relaxed);
  work_there_.Signal();
  return absl::OkStatus();
}

void TransferQueue::Promote(uint64_t ticket) {
  absl::MutexLock lock(&mutex_);
  const auto of_ticket = [&](const std::unique_ptr<Work>& work) {
    return work->job.ticket == ticket;
  };
  const auto leaving = std::ranges::find_if(leaving_, of_ticket);
  if (leaving != leaving_.end() && (*leaving)->job.cause != Cause::kDemand) {
    (*leaving)->job.cause = Cause::kDemand;
    BeginDemand();
  }
  const auto found = std::ranges::find_if(prefetches_, of_ticket);
  if (found == prefetches_.end()) return;
  (*found)->job.cause = Cause::kDemand;
  BeginDemand();
  demands_.push_back(std::move(*found));
  prefetches_.erase(found);
}

bool TransferQueue::Cancel(uint64_t ticket) {
  absl::MutexLock lock(&mutex_);
  const auto of_ticket = [&](const std::unique_ptr<Work>& work) {
    return work->job.ticket == ticket;
  };
  for (WorkQueue* queue : {&demands_, &prefetches_}) {
    const auto found = std::ranges::find_if(*queue, of_ticket);
    if (found == queue->end()) continue;
    Work& work = **found;
    work.status.Update(absl::CancelledError("nobody wants it any more"));
    if (work.handed_out == 0) {
      work.started = SteadyClock::now();
      if (started_++ == 0) busy_since_ = work.started;
    }
    Leave(*queue, found);
    if (work.reading == 0 && !work.hashing) Finish(work);
    return true;
  }
  return false;
}

double TransferQueue::demand_seconds() const {
  absl::MutexLock lock(&mutex_);
  SteadyClock::duration demand = demand_;
  if (demanded_ > 0) demand += SteadyClock::now() - demand_since_;
  return std::chrono::duration<double>(demand).count();
}

void TransferQueue::BeginDemand() {
  if (demanded_++ == 0) demand_since_ = SteadyClock::now();
}

double TransferQueue::busy_seconds() const {
  absl::MutexLock lock(&mutex_);
  SteadyClock::duration busy = busy_;
  if (started_ > 0) busy += SteadyClock::now() - busy_since_;
  return std::chrono::duration<double>(busy).count();
}

void TransferQueue::Poll(std::vector<TransferResult>& out) {
  if (finished_.load(std::memory_order_acquire) == 0) return;
  absl::MutexLock lock(&mutex_);
  under_way_ -= static_cast<int32_t>(results_.size());
  std::move(results_.begin(), results_.end(), std::back_inserter(out));
  results_.clear();
  finished_.store(0, std::memory_order_relaxed);
}

void TransferQueue::Wait(std::vector<TransferResult>& out,
                         const std::stop_token& stop) {
  CHECK(under_way_ > 0) << "nothing to wait for";
  const std::stop_callback wake(stop, [this] {
    absl::MutexLock lock(&mutex_);
    result_there_.SignalAll();
  });
  patience_.BeginWait(finished_);
  {
    absl::MutexLock lock(&mutex_);
    while (results_.empty() && !stop.stop_requested()) {
      result_there_.Wait(&mutex_);
    }
  }
  patience_.EndWait();
  Poll(out);
}

int64_t TransferQueue::ChunkBytes(const Work& work) const {
  if (work.job.cause == Cause::kPrefetch) {
    return std::min(GuessChunkBytes(work.job.bytes), config_.chunk_bytes);
  }
  const int64_t part = work.job.bytes / config_.threads;
  return std::clamp((part + 4095) / 4096 * 4096, config_.chunk_bytes,
                    kDemandChunks * config_.chunk_bytes);
}

void TransferQueue::Leave(WorkQueue& queue, WorkQueue::iterator work) {
  leaving_.push_back(std::move(*work));
  queue.erase(work);
  queued_.fetch_sub(1, std::memory_order_relaxed);
}

std::optional<TransferQueue::Chunk> TransferQueue::Take(Patience& patience) {
  patience.BeginWait(queued_);
  absl::MutexLock lock(&mutex_);
  while (!closed_ && demands_.empty() && prefetches_.empty()) {
    work_there_.Wait(&mutex_);
  }
  patience.EndWait();
  if (closed_) return std::nullopt;
  WorkQueue& queue = demands_.empty() ? prefetches_ : demands_;
  Work& work = *queue.front();
  if (work.handed_out == 0) {
    work.started = SteadyClock::now();
    if (started_++ == 0) busy_since_ = work.started;
  }
  const Chunk chunk{
      .work = &work,
      .begin = work.handed_out,
      .size = std::min(ChunkBytes(work), work.job.bytes - work.handed_out)};
  work.handed_out += chunk.size;
  ++work.reading;
  if (work.handed_out == work.job.bytes) Leave(queue, queue.begin());
  if (queued_.load(std::memory_order_relaxed) > 0) work_there_.Signal();
  return chunk;
}

int64_t TransferQueue::EndRead(const Chunk& chunk, absl::Status status) {
  absl::MutexLock lock(&mutex_);
  Work& work = *chunk.work;
  --work.reading;
  if (status.ok() && work.job.verify) {
    work.read.push_back(chunk);
  } else if (status.ok()) {
    work.done += chunk.size;
  } else {
    work.status.Update(absl::IsDataLoss(status)
                           ? std::move(status)
                           : absl::DataLossError(status.message()));
    for (WorkQueue* queue : {&demands_, &prefetches_}) {
      const auto found =
          std::ranges::find(*queue, &work, &std::unique_ptr<Work>::get);
      if (found != queue->end()) Leave(*queue, found);
    }
  }
  return work.hashing ? 0 : NextToHash(work);
}

int64_t TransferQueue::EndHash(Work& work, int64_t bytes) {
  absl::MutexLock lock(&mutex_);
  work.done += bytes;
  return NextToHash(work);
}

int64_t TransferQueue::NextToHash(Work& work) {
  const auto next = std::ranges::find(work.read, work.done, &Chunk::begin);
  work.hashing = work.status.ok() && next != work.read.end();
  if (work.hashing) {
    const int64_t bytes = next->size;
    work.read.erase(next);
    return bytes;
  }
  const bool complete = work.done == work.job.bytes;
  if (work.reading == 0 && (complete || !work.status.ok())) Finish(work);
  return 0;
}

void TransferQueue::Finish(Work& work) {
  const SteadyClock::time_point now = SteadyClock::now();
  if (--started_ == 0) busy_ += now - busy_since_;
  if (work.job.cause == Cause::kDemand && --demanded_ == 0) {
    demand_ += now - demand_since_;
  }
  if (work.status.ok() && work.job.verify) {
    work.status = Verify(work.hash, work.job.source);
  }
  results_.push_back(
      {.ticket = work.job.ticket,
       .status = std::move(work.status),
       .bytes = work.handed_out,
       .seconds = std::chrono::duration<double>(now - work.started).count(),
       .cause = work.job.cause});
  leaving_.erase(
      std::ranges::find(leaving_, &work, &std::unique_ptr<Work>::get));
  finished_.fetch_add(1, std::memory_order_release);
  result_there_.Signal();
}

void TransferQueue::Run() {
  ShortenTimeSlice(kTimeSlice);
  Patience patience;
  while (const std::optional<Chunk> chunk = Take(patience)) {
    Work& work = *chunk->work;
    const TransferJob& job = work.job;  // but for `cause`, it does not change
    int64_t bytes = EndRead(
        *chunk, reader_.Read(job.source.file, job.source.offset + chunk->begin,
                             {job.target + chunk->begin,
                              static_cast<size_t>(chunk->size)}));
    while (bytes > 0) {
      XXH3_64bits_update(&work.hash, job.target + work.done,
                         static_cast<size_t>(bytes));
      bytes = EndHash(work, bytes);
    }
  }
}

}  // namespace bullpen
