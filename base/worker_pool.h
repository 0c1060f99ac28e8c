#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"

namespace bullpen {

// The compute workers: `threads` in all, of which the calling (engine) thread
// is worker 0; the others are pinned, spin for a while, then sleep on a futex.
// Only one thread may call ParallelFor, and not from inside a task. Tasks must
// not throw.
class WorkerPool {
 public:
  // threads >= 1. Worker i runs on cpus[i], or, where there are fewer CPUs than
  // threads or one thread alone, on any of them; with no `cpus`, on any that
  // this process may use. The caller's own thread goes there at its first
  // ParallelFor, and is freed again if it also destroys the pool.
  WorkerPool(int threads, std::vector<int32_t> cpus);
  // With `pin`, on the CPUs of this process in their order.
  explicit WorkerPool(int threads, bool pin = true);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int threads() const { return threads_; }

  // Calls fn(begin, end, worker) for disjoint chunks that cover [0, count),
  // at most `chunk` wide, on any worker in any order; returns when all are
  // done. Each worker starts with adjacent chunks (WorkRanges). When count <=
  // chunk or threads() == 1 it is one call in the caller, fn(0, count, 0),
  // without any synchronisation. Otherwise it costs about half a microsecond
  // while the workers are still spinning from the last job, and one and a half
  // where they share no L3 cache. Which worker gets which chunk must never show
  // in a result.
  void ParallelFor(int64_t count, int64_t chunk,
                   absl::FunctionRef<void(int64_t, int64_t, int)> fn);

  // For benchmarks: from now on the time in ParallelFor is added up (two looks
  // at the clock for each call).
  void MeasureTime();
  // Any thread: seconds that the caller spent in ParallelFor since.
  double seconds() const;

 private:
  void Run(int64_t count, int64_t chunk,
           absl::FunctionRef<void(int64_t, int64_t, int)> fn);

  struct Shared;
  int threads_;
  std::unique_ptr<Shared> shared_;
};

}  // namespace bullpen
