#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "base/worker_pool.h"
#include "kernels/ops.h"

namespace bullpen::bench {

// Seconds of the best of many short slices: a long run on a shared machine
// measures its scheduler. One slice calls fn() `calls` times.
template <typename Fn>
double BestSeconds(int64_t calls, Fn&& fn) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kLeastTime(250);
  constexpr int kLeastSlices = 20;
  double best = 1e30;
  const Clock::time_point start = Clock::now();
  for (int slice = 0; slice < kLeastSlices || Clock::now() - start < kLeastTime;
       ++slice) {
    const Clock::time_point begin = Clock::now();
    for (int64_t i = 0; i < calls; ++i) fn();
    const std::chrono::duration<double> seconds = Clock::now() - begin;
    best = std::min(best, seconds.count() / static_cast<double>(calls));
  }
  return best;
}

// Bytes per second that the threads of `pool` read from memory that no cache
// holds.
double DramReadRoof(WorkerPool& pool);

// Floating-point operations per second of independent multiply-adds.
double FmaRoof(kernels::Isa isa, WorkerPool& pool);

}  // namespace bullpen::bench
