#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/codes_avx512.h"
#include "kernels/types.h"

// Sixteen float lanes on AVX-512 F + BW + DQ + VL + VNNI; see simd_avx2.h.
namespace bullpen::kernels {
namespace {

struct Avx512 : Avx512Codes {
  struct F {
    __m512 v;
  };

  static constexpr int kDotTokens = 12;
  static constexpr int kDotSums = 24;
  static constexpr int kDecodePanels = 4;
  static constexpr int kAttentionSums = 16;

  static F Zero() { return {_mm512_setzero_ps()}; }
  static F Set(float x) { return {_mm512_set1_ps(x)}; }
  static F Load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static void Store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
  static F LoadFirst(const float* p, int n) {
    return {_mm512_maskz_loadu_ps(LanesIn(0, n), p)};
  }
  static void StoreFirst(float* p, int n, F a) {
    _mm512_mask_storeu_ps(p, LanesIn(0, n), a.v);
  }

  static F Fma(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static F Add(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
  static F Sub(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
  static F Mul(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
  static F Div(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
  static F Negate(F a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
  static F Max(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }
  static F Min(F a, F b) { return {_mm512_min_ps(a.v, b.v)}; }
  static F Keep(F a, int first, int end, F fill) {
    return {_mm512_mask_mov_ps(fill.v, LanesIn(first, end), a.v)};
  }
  static uint32_t EqualLanes(F a, F b) {
    return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ);
  }
  static __m256 Low(F a) { return _mm512_castps512_ps256(a.v); }
  static __m256 High(F a) { return _mm512_extractf32x8_ps(a.v, 1); }

  template <DType kType>
  static F LoadAs(const void* base, int64_t index) {
    if constexpr (kType == DType::kF32) {
      return Load(static_cast<const float*>(base) + index);
    } else {
      const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(
          static_cast<const uint16_t*>(base) + index));
      if constexpr (kType == DType::kF16) {
        return {_mm512_cvtph_ps(half)};
      } else {
        return {_mm512_castsi512_ps(
            _mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
      }
    }
  }
  static void StoreF16(uint16_t* p, F a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
  }

  static F Column(Codes a, int b) {
    const __m512i at_top = _mm512_slli_epi32(a.v, 24 - 8 * b);
    return {_mm512_cvtepi32_ps(_mm512_srai_epi32(at_top, 24))};
  }
  static F ToFloat(Ints a) { return {_mm512_cvtepi32_ps(a.v)}; }

  static F FromInt8(const std::byte* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
  }

  static F ScaleByPower(F a, F rounded) {
    const __m512i n = _mm512_sub_epi32(_mm512_castps_si512(rounded.v),
                                       _mm512_set1_epi32(0x4B400000));
    const __m512i half = _mm512_srai_epi32(n, 1);
    return {_mm512_mul_ps(_mm512_mul_ps(a.v, PowerOfTwo(half)),
                          PowerOfTwo(_mm512_sub_epi32(n, half)))};
  }

  static F Accumulate(F a, F b, F c) {
    F sum = Fma(a, b, c);
    __asm__("" : "+v"(sum.v));
    return sum;
  }

 private:
  static __mmask16 LanesIn(int first, int end) {
    const uint32_t below = end >= 16 ? 0xFFFF : end <= 0 ? 0 : (1u << end) - 1;
    const uint32_t skip = first >= 16  ? 0xFFFF
                          : first <= 0 ? 0
                                       : (1u << first) - 1;
    return static_cast<__mmask16>(below & ~skip);
  }
  static __m512 PowerOfTwo(__m512i n) {
    const __m512i biased = _mm512_add_epi32(n, _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
  }
};

}  // namespace
}  // namespace bullpen::kernels
