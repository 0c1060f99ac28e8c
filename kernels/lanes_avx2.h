#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/split_codes.h"

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
// Byte b of each lane, a signed integer.
inline __m256 Column(__m256i a, int b) {
  const __m256i at_top = _mm256_slli_epi32(a, 24 - 8 * b);
  return _mm256_cvtepi32_ps(_mm256_srai_epi32(at_top, 24));
}

// For codes_avx2.h.
inline __m256i Load32Bytes(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
// Four bytes, in every lane.
inline __m256i LoadFour(const std::byte* p) {
  int32_t four;
  std::memcpy(&four, p, sizeof(four));
  return _mm256_set1_epi32(four);
}
// Two 16-bit copies of each lane, an 8-bit integer.
inline __m256i Twice(__m256i a) {
  return _mm256_shuffle_epi8(
      a, _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9,
                                                   8, 9, 12, 13, 12, 13)));
}
// Of lanes [8 half, 8 half + 8) the codes of columns [4v, 4v + 4) of a group
// (panel_format.h), mapped if kMapped and of 4 bits.
template <int kBits, bool kMapped>
inline __m256i LoadHalfCodes(const std::byte* codes, int v, int half,
                             __m256i map) {
  codes += half * 32;
  if constexpr (kBits == 8) {
    return Load32Bytes(codes + v * 64);
  } else if constexpr (kBits == 4) {
    const __m256i pair = Load32Bytes(codes + v / 2 * 64);
    const __m256i low = _mm256_and_si256(
        v % 2 == 0 ? pair : _mm256_srli_epi16(pair, 4), _mm256_set1_epi8(15));
    return kMapped ? _mm256_shuffle_epi8(map, low) : low;
  } else {
    if (v < WholeVectors(kBits)) {
      return _mm256_and_si256(Load32Bytes(codes + v * 64),
                              _mm256_set1_epi8((1 << kBits) - 1));
    }
    __m256i code = _mm256_setzero_si256();
#pragma GCC unroll 3
    for (int i = 0; i < kCodePieces; ++i) {
      const CodePiece& piece = SplitOf(kBits, v).pieces[i];
      if (piece.bits == 0) continue;
      const __m256i moved = _mm256_srli_epi16(
          Load32Bytes(codes + piece.vector * 64), piece.shift());
      code = _mm256_or_si256(
          code, _mm256_and_si256(
                    moved, _mm256_set1_epi8(static_cast<char>(piece.mask()))));
    }
    return code;
  }
}

}  // namespace
}  // namespace bullpen::kernels
