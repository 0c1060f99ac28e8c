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
  // Zen 4: of this family, which it shares with Zen 3, it alone has AVX-512.
  // There prefetches slow down a thread whose one stream the CPU's own
  // prefetchers serve: one of plain weights, or of codes for one or two rows
  // (bench/README.md has the figures).
  if (amd && family == 0x19 && avx512) {
    return {.plain = 0, .floats = 2048, .codes = 4096, .codes_few_rows = 0};
  }
  return {};
}

const PrefetchDistance kPrefetch = OfThisCpu();

}  // namespace bullpen::kernels
