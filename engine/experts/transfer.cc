#include "engine/experts/transfer.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "xxhash.h"

namespace bullpen {
namespace {

using SteadyClock = std::chrono::steady_clock;

// A wake-up takes about as long as reading a small expert, so a thread that
// has nothing to do looks for this long before it sleeps.
constexpr std::chrono::microseconds kSpin{20};

// Nothing overtakes a demand, so it may read more at a time: fewer calls.
constexpr int64_t kDemandChunks = 4;

void SpinUntilPositive(const std::atomic<int32_t>& count) {
  static const bool alone = std::thread::hardware_concurrency() < 2;
  if (alone) return;
  const SteadyClock::time_point end = SteadyClock::now() + kSpin;
  while (count.load(std::memory_order_relaxed) == 0 &&
         SteadyClock::now() < end) {
    std::this_thread::yield();
  }
}

struct HashDeleter {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

}  // namespace

struct TransferQueue::Work {
  TransferJob job;   // `cause` is guarded by mutex_ once it is queued
  int64_t done = 0;  // bytes read and hashed
  std::unique_ptr<XXH3_state_t, HashDeleter> hash;
  SteadyClock::time_point started;
};

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
  work->hash.reset(XXH3_createState());
  XXH3_64bits_reset(work->hash.get());
  ++under_way_;
  absl::MutexLock lock(&mutex_);
  std::deque<std::unique_ptr<Work>>& queue =
      job.cause == Cause::kDemand ? demands_ : prefetches_;
  queue.push_back(std::move(work));
  queued_.fetch_add(1, std::memory_order_relaxed);
  work_there_.Signal();
  return absl::OkStatus();
}

void TransferQueue::Promote(uint64_t ticket) {
  absl::MutexLock lock(&mutex_);
  for (Work* work : running_) {
    if (work->job.ticket == ticket) work->job.cause = Cause::kDemand;
  }
  const auto found = std::find_if(
      prefetches_.begin(), prefetches_.end(),
      [&](const auto& work) { return work->job.ticket == ticket; });
  if (found == prefetches_.end()) return;
  (*found)->job.cause = Cause::kDemand;
  demands_.push_back(std::move(*found));
  prefetches_.erase(found);
}

double TransferQueue::busy_seconds() const {
  absl::MutexLock lock(&mutex_);
  SteadyClock::duration busy = busy_;
  if (!running_.empty()) busy += SteadyClock::now() - busy_since_;
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

void TransferQueue::Wait(std::vector<TransferResult>& out) {
  CHECK(under_way_ > 0) << "nothing to wait for";
  SpinUntilPositive(finished_);
  {
    absl::MutexLock lock(&mutex_);
    while (results_.empty()) result_there_.Wait(&mutex_);
  }
  Poll(out);
}

std::unique_ptr<TransferQueue::Work> TransferQueue::Take() {
  SpinUntilPositive(queued_);
  absl::MutexLock lock(&mutex_);
  while (!closed_ && demands_.empty() && prefetches_.empty()) {
    work_there_.Wait(&mutex_);
  }
  if (closed_) return nullptr;
  std::deque<std::unique_ptr<Work>>& queue =
      demands_.empty() ? prefetches_ : demands_;
  std::unique_ptr<Work> work = std::move(queue.front());
  queue.pop_front();
  queued_.fetch_sub(1, std::memory_order_relaxed);
  if (running_.empty()) busy_since_ = SteadyClock::now();
  running_.push_back(work.get());
  return work;
}

bool TransferQueue::GivesWay(const Work& work) const {
  return closed_ || (work.job.cause == Cause::kPrefetch && !demands_.empty());
}

absl::Status TransferQueue::ReadChunks(Work& work) {
  const TransferJob& job = work.job;
  while (work.done < job.bytes) {
    int64_t size = config_.chunk_bytes;
    {
      absl::MutexLock lock(&mutex_);
      if (GivesWay(work)) return absl::OkStatus();
      if (job.cause == Cause::kDemand) size *= kDemandChunks;
    }
    size = std::min(size, job.bytes - work.done);
    const std::span<std::byte> chunk(job.target + work.done,
                                     static_cast<size_t>(size));
    const absl::Status status =
        reader_.Read(job.source.file, job.source.offset + work.done, chunk);
    if (!status.ok()) {
      return absl::IsDataLoss(status) ? status
                                      : absl::DataLossError(status.message());
    }
    XXH3_64bits_update(work.hash.get(), chunk.data(), chunk.size());
    work.done += size;
  }
  const uint64_t checksum = XXH3_64bits_digest(work.hash.get());
  if (checksum == job.source.checksum) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("wrong checksum at offset ", job.source.offset, ": ",
                   absl::Hex(checksum, absl::kZeroPad16), " instead of ",
                   absl::Hex(job.source.checksum, absl::kZeroPad16)));
}

void TransferQueue::GiveBack(std::unique_ptr<Work> work, absl::Status status) {
  const bool ended = !status.ok() || work->done == work->job.bytes;
  const double seconds =
      std::chrono::duration<double>(SteadyClock::now() - work->started).count();
  absl::MutexLock lock(&mutex_);
  running_.erase(std::find(running_.begin(), running_.end(), work.get()));
  if (running_.empty()) busy_ += SteadyClock::now() - busy_since_;
  if (ended) {
    results_.push_back({.ticket = work->job.ticket,
                        .status = std::move(status),
                        .seconds = seconds,
                        .cause = work->job.cause});
    finished_.fetch_add(1, std::memory_order_release);
    result_there_.Signal();
    return;
  }
  // It may have been promoted since it gave way.
  std::deque<std::unique_ptr<Work>>& queue =
      work->job.cause == Cause::kDemand ? demands_ : prefetches_;
  queue.push_front(std::move(work));
  queued_.fetch_add(1, std::memory_order_relaxed);
}

void TransferQueue::Run() {
  while (std::unique_ptr<Work> work = Take()) {
    if (work->done == 0) work->started = SteadyClock::now();
    absl::Status status = ReadChunks(*work);
    GiveBack(std::move(work), std::move(status));
  }
}

}  // namespace bullpen
