#pragma once

#include <algorithm>
#include <cstdint>

#include "base/worker_pool.h"
#include "kernels/ops.h"

namespace bullpen::kernels {
namespace {

// A part of an op smaller than this (in fused multiply-adds, about 2 us of one
// core) is not worth handing to another thread.
constexpr int64_t kPartWork = 32 << 10;

inline int Threads(const Stream& stream) {
  return stream.pool == nullptr ? 1 : stream.pool->threads();
}

// Splits `count` equal items of `work` each into parts and runs
// fn(begin, end, worker) on them; small ops stay in the caller.
template <typename Fn>
void ForParts(Stream& stream, int64_t count, int64_t work, Fn&& fn) {
  const int64_t chunk =
      std::max<int64_t>(1, kPartWork / std::max<int64_t>(1, work));
  if (stream.pool == nullptr) {
    if (count > 0) fn(int64_t{0}, count, 0);
    return;
  }
  stream.pool->ParallelFor(count, chunk, fn);
}

}  // namespace
}  // namespace bullpen::kernels
