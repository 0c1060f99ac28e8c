#include "base/worker_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/cpu_affinity.h"
#include "base/work_ranges.h"

namespace bullpen {
namespace {

using SteadyClock = std::chrono::steady_clock;

// How long a worker spins for the next job: longer than the gap between two
// ops or two tokens, shorter than what a sleeping thread costs its neighbours.
constexpr std::chrono::microseconds kSpinTime(60);
// Between two looks at the clock.
constexpr int kPauses = 64;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Spins until done() holds or the time is up. The clock, not a count of
// pauses: a pause takes 40 cycles on one CPU and 140 on another.
template <typename Done>
bool SpinUntil(Done&& done) {
  if (done()) return true;
  const SteadyClock::time_point end = SteadyClock::now() + kSpinTime;
  do {
    for (int i = 0; i < kPauses; ++i) {
      Pause();
      if (done()) return true;
    }
  } while (SteadyClock::now() < end);
  return false;
}

}  // namespace

// One job at a time. A worker enters by raising `active` and then looking
// whether the job is still open; the caller closes the job and then waits for
// `active` to fall to zero. Both orders are sequentially consistent, so either
// the worker sees the job closed or the caller sees the worker inside. A
// worker that wakes late therefore never delays the caller.
struct WorkerPool::Shared {
  explicit Shared(int threads) : chunks(threads) {}

  // Futex word: rises by two with each job; odd: stop. One word for both, or a
  // worker late for the last job could see no stop and then its generation.
  std::atomic<uint32_t> generation{0};
  std::atomic<bool> open{false};
  std::atomic<int> active{0};
  std::atomic<int> sleepers{0};

  // The open job. Written by the caller while closed and inactive.
  const absl::FunctionRef<void(int64_t, int64_t, int)>* fn = nullptr;
  int64_t count = 0;
  int64_t chunk = 1;
  WorkRanges chunks;

  std::atomic<bool> measure{false};
  std::atomic<int64_t> nanoseconds{0};  // In ParallelFor, if `measure`.

  std::vector<int32_t> cpus;  // Empty: the caller stays where it is.
  bool one_cpu_each = false;
  std::optional<std::thread::id> placed_caller;
  std::vector<std::thread> workers;

  // Puts the calling thread where `worker` runs.
  void Place(int worker) const {
    if (one_cpu_each) {
      RestrictThread({&cpus[worker], 1});
    } else {
      RestrictThread(cpus.empty() ? AllowedCpus() : cpus);
    }
  }

  void TakeChunks(int worker) {
    while (const std::optional<int64_t> taken = chunks.Take(worker)) {
      const int64_t begin = *taken * chunk;
      (*fn)(begin, std::min(begin + chunk, count), worker);
    }
  }

  // Waits until no worker is inside. One that lost its CPU in the middle of a
  // chunk may need this one's, so the wait gives way in the end.
  void WaitUntilLeft() {
    while (!SpinUntil([&] { return active.load() == 0; })) sched_yield();
  }

  void Run(int worker) {
    uint32_t seen = 0;
    while (true) {
      if (!SpinUntil([&] { return generation.load() != seen; })) {
        sleepers.fetch_add(1);
        generation.wait(seen);
        sleepers.fetch_sub(1);
      }
      seen = generation.load();
      if (seen % 2 != 0) return;
      active.fetch_add(1);
      if (open.load()) TakeChunks(worker);
      active.fetch_sub(1);
    }
  }
};

WorkerPool::WorkerPool(int threads, bool pin)
    : WorkerPool(threads,
                 pin && threads > 1 ? AllowedCpus() : std::vector<int32_t>()) {}

WorkerPool::WorkerPool(int threads, std::vector<int32_t> cpus)
    : threads_(threads) {
  CHECK(threads >= 1) << "threads = " << threads;
  shared_ = std::make_unique<Shared>(threads);
  AllowedCpus();  // Read before anybody is pinned.
  shared_->one_cpu_each = threads > 1 && std::ssize(cpus) >= threads;
  shared_->cpus = std::move(cpus);
  for (int worker = 1; worker < threads; ++worker) {
    shared_->workers.emplace_back([shared = shared_.get(), worker] {
      shared->Place(worker);
      shared->Run(worker);
    });
  }
}

WorkerPool::~WorkerPool() {
  shared_->generation.fetch_add(1);
  shared_->generation.notify_all();
  for (std::thread& worker : shared_->workers) worker.join();
  if (shared_->placed_caller == std::this_thread::get_id()) {
    RestrictThread(AllowedCpus());
  }
}

void WorkerPool::ParallelFor(
    int64_t count, int64_t chunk,
    absl::FunctionRef<void(int64_t, int64_t, int)> fn) {
  if (count <= 0) return;
  CHECK(chunk > 0) << "chunk = " << chunk;
  if (!shared_->measure.load(std::memory_order_relaxed)) {
    return Run(count, chunk, fn);
  }
  const SteadyClock::time_point begin = SteadyClock::now();
  Run(count, chunk, fn);
  const std::chrono::nanoseconds spent = SteadyClock::now() - begin;
  shared_->nanoseconds.fetch_add(spent.count(), std::memory_order_relaxed);
}

void WorkerPool::MeasureTime() { shared_->measure.store(true); }

double WorkerPool::seconds() const {
  return 1e-9 * static_cast<double>(
                    shared_->nanoseconds.load(std::memory_order_relaxed));
}

void WorkerPool::Run(int64_t count, int64_t chunk,
                     absl::FunctionRef<void(int64_t, int64_t, int)> fn) {
  Shared& shared = *shared_;
  if (!shared.cpus.empty() && !shared.placed_caller) {
    shared.Place(0);
    shared.placed_caller = std::this_thread::get_id();
  }
  if (threads_ == 1 || count <= chunk) {
    fn(0, count, 0);
    return;
  }
  CHECK(!shared.open.load()) << "ParallelFor inside a task";
  // A worker that woke for an earlier job may still be looking at `open`.
  shared.WaitUntilLeft();
  shared.fn = &fn;
  shared.count = count;
  shared.chunk = chunk;
  shared.chunks.Reset((count + chunk - 1) / chunk);
  shared.open.store(true);
  shared.generation.fetch_add(2);
  if (shared.sleepers.load() > 0) shared.generation.notify_all();
  shared.TakeChunks(0);
  shared.open.store(false);
  shared.WaitUntilLeft();
}

}  // namespace bullpen
