#include "tools/bench/roofs.h"

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <iterator>
#include <optional>

#include "base/check.h"
#include "base/cpu_affinity.h"
#include "base/status.h"

namespace bullpen {
namespace {

using kernels::Isa;

// Far larger than any third-level cache's share of one machine.
constexpr int64_t kDramBytes = int64_t{512} << 20;
constexpr int64_t kSliceBytes = int64_t{16} << 20;
constexpr std::chrono::milliseconds kLeastTime(250);

// Independent accumulators: more than latency times issue width needs.
constexpr int kChains = 12;
constexpr int kSteps = 4096;
// Multiply-adds of one 256-bit instruction, and of one 512-bit instruction.
constexpr double kWide = 2;

// Where results go, so that no compiler can leave out what made them.
std::atomic<int32_t> sink;

__attribute__((target("avx2"))) int32_t ReadAll(const std::byte* data,
                                                int64_t bytes) {
  __m256i sum[4] = {};
  for (int64_t i = 0; i < bytes; i += 128) {
    for (int k = 0; k < 4; ++k) {
      const __m256i* p = reinterpret_cast<const __m256i*>(data + i + 32 * k);
      sum[k] = _mm256_xor_si256(sum[k], _mm256_load_si256(p));
    }
  }
  const __m256i all = _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]),
                                       _mm256_xor_si256(sum[2], sum[3]));
  return _mm256_extract_epi32(all, 0);
}

// The empty asm makes a value unknown to the compiler, which then neither
// hoists nor merges what is computed from it.
__attribute__((target("avx2,fma"))) int32_t FmaAvx2() {
  __m256 acc[kChains];
  const __m256 x = _mm256_set1_ps(0.5f);
#pragma GCC unroll 12
  for (int k = 0; k < kChains; ++k) acc[k] = x;
  for (int i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
    for (int k = 0; k < kChains; ++k) {
      acc[k] = _mm256_fmadd_ps(acc[k], x, x);
      __asm__("" : "+x"(acc[k]));
    }
  }
#pragma GCC unroll 12
  for (int k = 1; k < kChains; ++k) acc[0] = _mm256_add_ps(acc[0], acc[k]);
  return static_cast<int32_t>(_mm256_cvtss_f32(acc[0]));
}

__attribute__((target("avx512f"))) int32_t FmaAvx512() {
  __m512 acc[kChains];
  const __m512 x = _mm512_set1_ps(0.5f);
#pragma GCC unroll 12
  for (int k = 0; k < kChains; ++k) acc[k] = x;
  for (int i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
    for (int k = 0; k < kChains; ++k) {
      acc[k] = _mm512_fmadd_ps(acc[k], x, x);
      __asm__("" : "+v"(acc[k]));
    }
  }
#pragma GCC unroll 12
  for (int k = 1; k < kChains; ++k) acc[0] = _mm512_add_ps(acc[0], acc[k]);
  return static_cast<int32_t>(_mm512_cvtss_f32(acc[0]));
}

// Chains of the two below: each holds a product besides its sum.
constexpr int kMaddChains = 6;
constexpr int kMaddsPerSum = 4;

__attribute__((target("avx2"))) int32_t MaddAvx2() {
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i weights = _mm256_set1_epi8(3);
  __m256i x = _mm256_set1_epi8(1);
  __m256i acc[kMaddChains] = {};
  for (int i = 0; i < kSteps; ++i) {
#pragma GCC unroll 6
    for (int k = 0; k < kMaddChains; ++k) {
      __m256i sum = _mm256_maddubs_epi16(weights, x);
#pragma GCC unroll 3
      for (int m = 1; m < kMaddsPerSum; ++m) {
        __asm__("" : "+x"(x));
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(weights, x));
      }
      acc[k] = _mm256_add_epi32(acc[k], _mm256_madd_epi16(sum, ones));
      __asm__("" : "+x"(acc[k]), "+x"(x));
    }
  }
  for (int k = 1; k < kMaddChains; ++k) {
    acc[0] = _mm256_add_epi32(acc[0], acc[k]);
  }
  return _mm256_extract_epi32(acc[0], 0);
}

__attribute__((target("avx512f,avx512vnni"))) int32_t DotAvx512() {
  const __m512i weights = _mm512_set1_epi8(3);
  const __m512i x = _mm512_set1_epi8(1);
  __m512i acc[kChains] = {};
  for (int i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
    for (int k = 0; k < kChains; ++k) {
      acc[k] = _mm512_dpbusd_epi32(acc[k], weights, x);
      __asm__("" : "+v"(acc[k]));
    }
  }
#pragma GCC unroll 12
  for (int k = 1; k < kChains; ++k) {
    acc[0] = _mm512_add_epi32(acc[0], acc[k]);
  }
  return _mm512_cvtsi512_si32(acc[0]);
}

// A loop, and the multiply-adds that one call of it does.
struct Loop {
  int32_t (*run)();
  double madds;
};

Loop LoopOf(Peak peak, Isa isa) {
  const bool wide = isa == Isa::kAvx512;
  const double width = wide ? kWide : 1;
  const double chains = static_cast<double>(kChains) * kSteps;
  switch (peak) {
    case Peak::kFmaF32:
      return {wide ? FmaAvx512 : FmaAvx2, width * 8 * chains};
    case Peak::kMaddU8S8:
      return {MaddAvx2, 32.0 * kMaddsPerSum * kMaddChains * kSteps};
    case Peak::kDotU8S8:
      return {DotAvx512, kWide * 32 * chains};
  }
  CHECK(false) << "peak " << static_cast<int>(peak);
  return {};
}

// Of the best of many runs to and fro.
std::optional<double> HandOverSeconds(WorkerPool& pool) {
  if (pool.threads() == 1) return std::nullopt;
  // Two on one CPU would wait for each other's time slices.
  if (pool.threads() > std::ssize(AllowedCpus())) return std::nullopt;
  constexpr int kTurns = 1000;
  // Even: item 0's turn. Alone on its cache line.
  static struct alignas(64) {
    std::atomic<int> turn;
  } line;
  const double per_second = BestOfSlices(std::chrono::milliseconds(5), [&] {
    line.turn.store(0);
    const double seconds = SecondsOf([&] {
      // As long as one waits in its item, the other item is another thread's.
      pool.ParallelFor(2, 1, [&](int64_t item, int64_t, int) {
        for (int i = static_cast<int>(item); i < 2 * kTurns; i += 2) {
          while (line.turn.load(std::memory_order_acquire) != i) {
          }
          line.turn.store(i + 1, std::memory_order_release);
        }
      });
    });
    return 2 * kTurns / seconds;
  });
  return 1 / per_second;
}

}  // namespace

absl::StatusOr<DramRoof> DramRoof::Allocate(
    std::span<const int32_t> memory_nodes) {
  if (!kernels::IsSupported(Isa::kAvx2)) {
    return absl::FailedPreconditionError(
        "this CPU has no AVX2, which measuring the memory's rate needs");
  }
  ASSIGN_OR_RETURN(
      HugeBuffer memory,
      HugeBuffer::Allocate(kDramBytes, HugeBuffer::Touch::kNow, memory_nodes));
  return DramRoof(std::move(memory));
}

double DramRoof::Slice(WorkerPool& pool) {
  constexpr int64_t kPartBytes = 256 << 10;
  const double seconds = SecondsOf([&] {
    pool.ParallelFor(kSliceBytes / kPartBytes, 1,
                     [&](int64_t begin, int64_t end, int) {
                       sink = ReadAll(memory_.data() + at_ + begin * kPartBytes,
                                      (end - begin) * kPartBytes);
                     });
  });
  at_ = (at_ + kSliceBytes) % kDramBytes;
  return static_cast<double>(kSliceBytes) / seconds;
}

double DramRoof::Best(WorkerPool& pool) {
  return BestOfSlices(kLeastTime, [&] { return Slice(pool); });
}

nlohmann::ordered_json MemoryLimits(DramRoof& roof, WorkerPool& pool) {
  const double dram = roof.Best(pool);
  nlohmann::ordered_json limits = {{"dram_bytes_per_second", dram}};
  std::printf("%d threads: DRAM read %.1f GB/s", pool.threads(), 1e-9 * dram);
  if (const std::optional<double> seconds = HandOverSeconds(pool)) {
    limits["hand_over_seconds"] = *seconds;
    std::printf(", a line from one to another %.0f ns", 1e9 * *seconds);
  }
  return limits;
}

const char* PeakName(Peak peak) {
  switch (peak) {
    case Peak::kFmaF32:
      return "f32_fma";
    case Peak::kMaddU8S8:
      return "int8_vpmaddubsw";
    case Peak::kDotU8S8:
      return "int8_vpdpbusd";
  }
  return "";
}

bool HasPeak(Peak peak, Isa isa) {
  if (isa == Isa::kOracle || !kernels::IsSupported(isa)) return false;
  return peak == Peak::kFmaF32 || peak == IntegerPeak(isa);
}

Peak IntegerPeak(Isa isa) {
  return isa == Isa::kAvx512 ? Peak::kDotU8S8 : Peak::kMaddU8S8;
}

double PeakSlice(Peak peak, Isa isa, WorkerPool& pool) {
  CHECK(HasPeak(peak, isa)) << PeakName(peak);
  constexpr int64_t kParts = 32;
  const Loop loop = LoopOf(peak, isa);
  const double seconds = SecondsOf([&] {
    pool.ParallelFor(kParts, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) sink = loop.run();
    });
  });
  return 2 * loop.madds * kParts / seconds;
}

double BestPeak(Peak peak, Isa isa, WorkerPool& pool) {
  return BestOfSlices(kLeastTime, [&] { return PeakSlice(peak, isa, pool); });
}

}  // namespace bullpen
