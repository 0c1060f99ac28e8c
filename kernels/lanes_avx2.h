#pragma once

#include <immintrin.h>

// Halves of the sixteen lanes of simd_avx2.h.
namespace bullpen::kernels {
namespace {

inline __m256i LanesBelow(int n) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lanes);
}
inline __m256i LanesIn(int first, int end) {
  return _mm256_andnot_si256(LanesBelow(first), LanesBelow(end));
}
inline __m256 WidenBF16(__m128i a) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(a), 16));
}
inline __m256 PowerOfTwo(__m256i n) {
  const __m256i biased = _mm256_add_epi32(n, _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
inline __m256 ScaleByPower(__m256 a, __m256 rounded) {
  const __m256i n = _mm256_sub_epi32(_mm256_castps_si256(rounded),
                                     _mm256_set1_epi32(0x4B400000));
  const __m256i half = _mm256_srai_epi32(n, 1);
  return _mm256_mul_ps(_mm256_mul_ps(a, PowerOfTwo(half)),
                       PowerOfTwo(_mm256_sub_epi32(n, half)));
}

}  // namespace
}  // namespace bullpen::kernels
