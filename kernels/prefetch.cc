#include "kernels/prefetch.h"

#include <cpuid.h>

#include "kernels/ops.h"

namespace bullpen::kernels {
namespace {

PrefetchDistance OfThisCpu() {
#if defined(__x86_64__)
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx)) {
    const uint32_t family = (eax >> 8 & 0xF) + (eax >> 20 & 0xFF);
    return PrefetchDistanceOf(__builtin_cpu_is("amd"),
                              static_cast<int32_t>(family),
                              IsSupported(Isa::kAvx512));
  }
#endif
  return {};
}

}  // namespace

PrefetchDistance PrefetchDistanceOf(bool amd, int32_t family, bool avx512) {
  // Zen 4: the first of its family (Zen 3) with AVX-512. A tile of one or two
  // rows loads so far ahead by itself that asking only fills the first-level
  // cache's queue of misses, while its own prefetchers keep the second's full.
  if (amd && family == 0x19 && avx512) {
    return {.floats = 2048, .codes = 4096, .codes_few_rows = 0};
  }
  return {};
}

const PrefetchDistance kPrefetch = OfThisCpu();

}  // namespace bullpen::kernels
