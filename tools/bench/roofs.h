#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <span>
#include <utility>

#include "absl/status/statusor.h"
#include "base/huge_buffer.h"
#include "base/worker_pool.h"
#include "kernels/ops.h"
#include "nlohmann/json.hpp"

namespace bullpen {

// Seconds that fn() takes.
template <typename Fn>
double SecondsOf(Fn&& fn) {
  const auto begin = std::chrono::steady_clock::now();
  fn();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
      .count();
}

// The best of many short slices: a long run on a shared machine measures its
// scheduler.
template <typename Slice>
double BestOfSlices(std::chrono::milliseconds least_time, Slice&& slice) {
  constexpr int kLeastSlices = 20;
  double best = 0;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kLeastSlices ||
                  std::chrono::steady_clock::now() - start < least_time;
       ++i) {
    best = std::max(best, slice());
  }
  return best;
}

// Reads memory that no cache holds, slice by slice, so that the slices can
// stand between those of what is compared with them: the rate itself moves.
class DramRoof {
 public:
  // ResourceExhausted if there are no 512 MiB; FailedPrecondition without AVX2.
  // memory_nodes: see HugeBuffer.
  static absl::StatusOr<DramRoof> Allocate(
      std::span<const int32_t> memory_nodes = {});

  // Bytes per second of one slice of 16 MiB (under a millisecond).
  double Slice(WorkerPool& pool);
  double Best(WorkerPool& pool);

 private:
  explicit DramRoof(HugeBuffer memory) : memory_(std::move(memory)) {}
  HugeBuffer memory_;
  int64_t at_ = 0;
};

// Measures and prints, without the line's end, what the pool's threads read of
// memory (dram_bytes_per_second) and how long a cache line takes from one of
// them to another (hand_over_seconds; not if there is one, or fewer CPUs than
// threads): some 30 ns under one third-level cache, several times that from one
// to the next, and then each thread has its own way to memory, too.
nlohmann::ordered_json MemoryLimits(DramRoof& roof, WorkerPool& pool);

// Peaks of instructions without memory. One multiply-add counts as two.
enum class Peak {
  kFmaF32,
  // Four vpmaddubsw to one vpmaddwd, of AVX2: what 4-bit weights can reach.
  kMaddU8S8,
  kDotU8S8,  // vpdpbusd, of AVX-512 VNNI
};
const char* PeakName(Peak peak);
// Whether the instruction set's kernels use it, and this CPU has it.
bool HasPeak(Peak peak, kernels::Isa isa);
// The integer peak of that instruction set's kernels.
Peak IntegerPeak(kernels::Isa isa);

// Operations per second of one slice (under a millisecond).
double PeakSlice(Peak peak, kernels::Isa isa, WorkerPool& pool);
double BestPeak(Peak peak, kernels::Isa isa, WorkerPool& pool);

}  // namespace bullpen
