#include "bench/kernels/roofs.h"

#include <immintrin.h>

#include "base/check.h"
#include "base/huge_buffer.h"
#include "benchmark/benchmark.h"

namespace bullpen::bench {
namespace {

__attribute__((target("avx2"))) int ReadAll(const std::byte* data,
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

constexpr int kChains = 12;
constexpr int kSteps = 4096;

__attribute__((target("avx2,fma"))) float FmaAvx2() {
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
  return _mm256_cvtss_f32(acc[0]);
}

__attribute__((target("avx512f"))) float FmaAvx512() {
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
  return _mm512_cvtss_f32(acc[0]);
}

}  // namespace

double DramReadRoof(WorkerPool& pool) {
  // Far larger than any third-level cache's share of one machine.
  constexpr int64_t kBytes = int64_t{768} << 20;
  constexpr int64_t kSliceBytes = int64_t{16} << 20;
  static const HugeBuffer* const memory = [] {
    absl::StatusOr<HugeBuffer> buffer = HugeBuffer::Allocate(kBytes);
    CHECK(buffer.ok()) << buffer.status().message();
    return new HugeBuffer(*std::move(buffer));
  }();
  int64_t at = 0;
  const double seconds = BestSeconds(1, [&] {
    pool.ParallelFor(kSliceBytes, 256 << 10,
                     [&](int64_t begin, int64_t end, int) {
                       benchmark::DoNotOptimize(
                           ReadAll(memory->data() + at + begin, end - begin));
                     });
    at = (at + kSliceBytes) % kBytes;
  });
  return static_cast<double>(kSliceBytes) / seconds;
}

double FmaRoof(kernels::Isa isa, WorkerPool& pool) {
  const bool wide = isa == kernels::Isa::kAvx512;
  const int64_t parts = 64;
  const double seconds = BestSeconds(1, [&] {
    pool.ParallelFor(parts, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        benchmark::DoNotOptimize(wide ? FmaAvx512() : FmaAvx2());
      }
    });
  });
  const double lanes = wide ? 16 : 8;
  return 2.0 * lanes * kChains * kSteps * static_cast<double>(parts) / seconds;
}

}  // namespace bullpen::bench
