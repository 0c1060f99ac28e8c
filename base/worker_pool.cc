#include "base/worker_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "base/check.h"

namespace bullpen {
namespace {

// About 30 us of pauses: longer than the gap between two ops of a layer,
// shorter than what a sleeping thread costs its neighbours.
constexpr int kSpins = 2000;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

void PinSelf(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

std::vector<int> AllowedCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

}  // namespace

// One job at a time. A worker enters by raising `active` and then looking
// whether the job is still open; the caller closes the job and then waits for
// `active` to fall to zero. Both orders are sequentially consistent, so either
// the worker sees the job closed or the caller sees the worker inside. A
// worker that wakes late therefore never delays the caller.
struct WorkerPool::Shared {
  std::atomic<uint32_t> generation{0};  // Rises with each job; futex word.
  std::atomic<bool> open{false};
  std::atomic<int> active{0};
  std::atomic<int> sleepers{0};
  std::atomic<bool> stop{false};

  // The open job. Written by the caller while closed and inactive.
  const absl::FunctionRef<void(int64_t, int64_t, int)>* fn = nullptr;
  int64_t count = 0;
  int64_t chunk = 1;
  alignas(64) std::atomic<int64_t> next{0};

  std::vector<int> cpus;
  bool caller_pinned = false;
  std::vector<std::thread> workers;

  void TakeChunks(int worker) {
    while (true) {
      const int64_t begin = next.fetch_add(chunk, std::memory_order_relaxed);
      if (begin >= count) return;
      (*fn)(begin, std::min(begin + chunk, count), worker);
    }
  }

  void Run(int worker) {
    uint32_t seen = 0;
    while (true) {
      for (int spin = 0; spin < kSpins && generation.load() == seen; ++spin) {
        Pause();
      }
      if (generation.load() == seen) {
        sleepers.fetch_add(1);
        generation.wait(seen);
        sleepers.fetch_sub(1);
      }
      if (stop.load()) return;
      seen = generation.load();
      active.fetch_add(1);
      if (open.load()) TakeChunks(worker);
      active.fetch_sub(1);
    }
  }
};

WorkerPool::WorkerPool(int threads, bool pin)
    : threads_(threads), shared_(std::make_unique<Shared>()) {
  CHECK(threads >= 1) << "threads = " << threads;
  if (pin) shared_->cpus = AllowedCpus();
  // More workers than CPUs cannot each have their own.
  if (static_cast<int>(shared_->cpus.size()) < threads) shared_->cpus.clear();
  for (int worker = 1; worker < threads; ++worker) {
    shared_->workers.emplace_back([shared = shared_.get(), worker] {
      if (!shared->cpus.empty()) PinSelf(shared->cpus[worker]);
      shared->Run(worker);
    });
  }
}

WorkerPool::~WorkerPool() {
  shared_->stop.store(true);
  shared_->generation.fetch_add(1);
  shared_->generation.notify_all();
  for (std::thread& worker : shared_->workers) worker.join();
}

void WorkerPool::ParallelFor(
    int64_t count, int64_t chunk,
    absl::FunctionRef<void(int64_t, int64_t, int)> fn) {
  if (count <= 0) return;
  CHECK(chunk > 0) << "chunk = " << chunk;
  if (threads_ == 1 || count <= chunk) {
    fn(0, count, 0);
    return;
  }
  Shared& shared = *shared_;
  if (!shared.cpus.empty() && !shared.caller_pinned) {
    PinSelf(shared.cpus[0]);
    shared.caller_pinned = true;
  }
  // A worker that woke for an earlier job may still be looking at `open`.
  while (shared.active.load() != 0) Pause();
  shared.fn = &fn;
  shared.count = count;
  shared.chunk = chunk;
  shared.next.store(0, std::memory_order_relaxed);
  shared.open.store(true);
  shared.generation.fetch_add(1);
  if (shared.sleepers.load() > 0) shared.generation.notify_all();
  shared.TakeChunks(0);
  shared.open.store(false);
  while (shared.active.load() != 0) Pause();
}

}  // namespace bullpen
