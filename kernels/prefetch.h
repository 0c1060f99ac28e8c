#pragma once

#include <cstddef>
#include <cstdint>

namespace bullpen::kernels {

// How far ahead of what it reads a tile asks memory for weights, in bytes over
// all its panels: about what memory delivers in the time that it takes to
// answer (40 GB/s in 200 ns). 0: not at all.
struct PrefetchDistance {
  int64_t halves = 8192;   // plain types of 16 bits
  int64_t singles = 8192;  // F32
  int64_t floats = 8192;   // block types with float activations
  int64_t codes = 8192;
  int64_t codes_few_rows = 8192;  // one or two rows
};

// What was fastest on that CPU, if it has been tried: each has prefetchers of
// its own besides. `family` as in CPUID.
PrefetchDistance PrefetchDistanceOf(bool amd, int32_t family, bool avx512);
// This CPU's.
extern const PrefetchDistance kPrefetch;

namespace {

inline int64_t CodesPrefetch(int rows) {
  return rows <= 2 ? kPrefetch.codes_few_rows : kPrefetch.codes;
}

// Asks for what the group at the same place `ahead` bytes on holds. Inlined
// first of all: gcc 12 finds that a function which only prefetches has no
// effect, and drops its calls.
template <int kPanels>
[[gnu::always_inline]] inline void PrefetchGroup(const std::byte* group,
                                                 int64_t panel_bytes,
                                                 int64_t ahead, int32_t bytes) {
  for (int p = 0; p < kPanels; ++p) {
    for (int32_t line = 0; line < bytes; line += 64) {
      __builtin_prefetch(group + p * panel_bytes + ahead + line);
    }
  }
}

}  // namespace
}  // namespace bullpen::kernels
