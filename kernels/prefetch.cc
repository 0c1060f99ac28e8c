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
  // Family 19h is Zen 3 and Zen 4, of which only the later has AVX-512.
  // A prefetch slows down a thread whose one stream the CPU's own prefetchers
  // serve: on Zen 4 one of plain weights, or of codes for one or two rows, on
  // Zen 3 one of F32. bench/README.md has the figures.
  if (amd && family == 0x19) {
    if (avx512) {
      return {.halves = 0,
              .singles = 0,
              .floats = 2048,
              .codes = 4096,
              .codes_few_rows = 0};
    }
    return {.halves = 1536, .singles = 0, .codes_few_rows = 2048};
  }
  return {};
}

const PrefetchDistance kPrefetch = OfThisCpu();

}  // namespace bullpen::kernels
