#include "kernels/ops.h"

#include <cpuid.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/strings.h"
#include "kernels/oracle.h"
#include "kernels/simd_tables.h"

namespace bullpen::kernels {
namespace {

constexpr Ops kOracleOps = {
    .name = "oracle",
    .embed = oracle::Embed,
    .matmul = oracle::MatMul,
    .rms_norm = oracle::RmsNorm,
    .layer_norm = oracle::LayerNorm,
    .rope = oracle::Rope,
    .kv_write = oracle::KvWrite,
    .attention = oracle::Attention,
    .route = oracle::Route,
    .grouped_ffn = oracle::GroupedFfn,
    .combine = oracle::Combine,
};

#if defined(__x86_64__)
// Whether the operating system saves the register state of `mask` (XCR0).
bool SavesState(uint32_t mask) {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr uint32_t kOsXsave = 1u << 27;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & kOsXsave)) {
    return false;
  }
  uint32_t low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & mask) == mask;
}

bool HasAvx2() {
  constexpr uint32_t kXmmYmm = 0x6;
  return SavesState(kXmmYmm) && __builtin_cpu_supports("avx2") &&
         __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

bool HasAvx512() {
  constexpr uint32_t kXmmYmmZmm = 0xE6;
  return HasAvx2() && SavesState(kXmmYmmZmm) &&
         __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}
#else
bool HasAvx2() { return false; }
bool HasAvx512() { return false; }
#endif

}  // namespace

bool IsSupported(Isa isa) {
  // Asked once: in a virtual machine CPUID costs microseconds.
  static const bool has_avx2 = HasAvx2();
  static const bool has_avx512 = HasAvx512();
  switch (isa) {
    case Isa::kOracle:
      return true;
    case Isa::kAvx2:
      return has_avx2;
    case Isa::kAvx512:
      return has_avx512;
  }
  return false;
}

Isa BestIsa() {
  if (IsSupported(Isa::kAvx512)) return Isa::kAvx512;
  return IsSupported(Isa::kAvx2) ? Isa::kAvx2 : Isa::kOracle;
}

const Ops& CpuOps(Isa isa) {
  CHECK(IsSupported(isa)) << "isa " << static_cast<int>(isa);
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return kAvx512Ops;
  if (isa == Isa::kAvx2) return kAvx2Ops;
#endif
  return kOracleOps;
}

absl::StatusOr<Isa> ParseIsa(std::string_view name) {
  Isa isa = Isa::kOracle;
  if (name == "auto") return BestIsa();
  if (name == "avx2") {
    isa = Isa::kAvx2;
  } else if (name == "avx512") {
    isa = Isa::kAvx512;
  } else if (name != "oracle") {
    return absl::InvalidArgumentError(absl::StrCat(
        "isa '", Absl(name), "' is not one of auto, oracle, avx2, avx512"));
  }
  if (!IsSupported(isa)) {
    return absl::FailedPreconditionError(
        absl::StrCat("this CPU cannot run isa '", Absl(name), "'"));
  }
  return isa;
}

void CheckRoute(const RouteArgs& args) {
  const RouterRule& rule = args.rule;
  CHECK(args.experts >= 1 && args.experts <= 1024) << args.experts;
  CHECK(args.k >= 1 && args.k <= 32 && args.k <= args.experts)
      << "k " << args.k << " of " << args.experts << " experts";
  CHECK(rule.groups >= 1 && args.experts % rule.groups == 0)
      << args.experts << " experts in " << rule.groups << " groups";
  CHECK(rule.groups == 1 ||
        (rule.groups_kept >= 1 && rule.groups_kept <= rule.groups &&
         args.k <= args.experts / rule.groups * rule.groups_kept))
      << "k " << args.k << ", " << rule.groups_kept << " of " << rule.groups
      << " groups kept";
}

}  // namespace bullpen::kernels
