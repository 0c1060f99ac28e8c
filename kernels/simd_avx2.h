#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/codes_avx2.h"
#include "kernels/lanes_avx2.h"
#include "kernels/types.h"

// Sixteen float lanes on AVX2 + FMA + F16C: the vocabulary that the *_simd.h
// loops are written in. simd_avx512.h offers the same one. Everything is local
// to the including file, so that no code for this CPU leaks into others.
namespace bullpen::kernels {
namespace {

struct Avx2 : Avx2Codes {
  struct F {
    __m256 lo, hi;
  };

  // Accumulators that fit the register file beside the operands.
  static constexpr int kDotTokens = 6;     // rows of x in one tile
  static constexpr int kDotSums = 6;       // panels * tokens, at most
  static constexpr int kDecodePanels = 4;  // panels at a time for one token
  static constexpr int kAttentionSums = 6;

  static F Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F Load(const float* p) {
    return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
  }
  static void Store(float* p, F a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
  }
  // The first n lanes, 0 < n < 16; the others load as zero and are not touched.
  static F LoadFirst(const float* p, int n) {
    const __m256i lo = LanesBelow(n), hi = LanesBelow(n - 8);
    return {_mm256_maskload_ps(p, lo), _mm256_maskload_ps(p + 8, hi)};
  }
  static void StoreFirst(float* p, int n, F a) {
    _mm256_maskstore_ps(p, LanesBelow(n), a.lo);
    _mm256_maskstore_ps(p + 8, LanesBelow(n - 8), a.hi);
  }

  // a * b + c, rounded once.
  static F Fma(F a, F b, F c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo),
            _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  static F Add(F a, F b) {
    return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
  }
  static F Sub(F a, F b) {
    return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
  }
  static F Mul(F a, F b) {
    return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
  }
  static F Div(F a, F b) {
    return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
  }
  static F Negate(F a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
  }
  // b where either is NaN.
  static F Max(F a, F b) {
    return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
  }
  static F Min(F a, F b) {
    return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
  }
  // a in the lanes first <= i < end, `fill` in the others.
  static F Keep(F a, int first, int end, F fill) {
    const __m256i lo = LanesIn(first, end), hi = LanesIn(first - 8, end - 8);
    return {_mm256_blendv_ps(fill.lo, a.lo, _mm256_castsi256_ps(lo)),
            _mm256_blendv_ps(fill.hi, a.hi, _mm256_castsi256_ps(hi))};
  }
  // Bit i is set where a[i] == b[i].
  static uint32_t EqualLanes(F a, F b) {
    const int lo = _mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ));
    const int hi = _mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ));
    return static_cast<uint32_t>(lo | hi << 8);
  }
  static __m256 Low(F a) { return a.lo; }
  static __m256 High(F a) { return a.hi; }

  // Sixteen weights or cache elements, from `index` elements on.
  template <DType kType>
  static F LoadAs(const void* base, int64_t index) {
    if constexpr (kType == DType::kF32) {
      return Load(static_cast<const float*>(base) + index);
    } else {
      const __m128i* p = reinterpret_cast<const __m128i*>(
          static_cast<const uint16_t*>(base) + index);
      const __m128i lo = _mm_loadu_si128(p), hi = _mm_loadu_si128(p + 1);
      if constexpr (kType == DType::kF16) {
        return {_mm256_cvtph_ps(lo), _mm256_cvtph_ps(hi)};
      } else {
        return {WidenBF16(lo), WidenBF16(hi)};
      }
    }
  }
  static void StoreF16(uint16_t* p, F a) {
    __m128i* out = reinterpret_cast<__m128i*>(p);
    _mm_storeu_si128(out, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(out + 1, _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
  }

  // Column b of the four of signed codes.
  static F Column(Codes a, int b) {
    return {kernels::Column(a.lo, b), kernels::Column(a.hi, b)};
  }
  static F ToFloat(Ints a) {
    return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
  }

  // Sixteen signed bytes.
  static F FromInt8(const std::byte* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
  }

  // a * 2^n, where `rounded` holds n as ExpTerms::kRound + n.
  static F ScaleByPower(F a, F rounded) {
    return {kernels::ScaleByPower(a.lo, rounded.lo),
            kernels::ScaleByPower(a.hi, rounded.hi)};
  }

  // Fma for sums that live in registers. Without the fence gcc 12 delays the
  // additions of an unrolled tile and spills what they wait for; by value,
  // because a fence on an array element would keep the array in memory.
  static F Accumulate(F a, F b, F c) {
    F sum = Fma(a, b, c);
    __asm__("" : "+x"(sum.lo), "+x"(sum.hi));
    return sum;
  }
};

}  // namespace
}  // namespace bullpen::kernels
