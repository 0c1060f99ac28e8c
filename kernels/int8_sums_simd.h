#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/panel_format.h"

// Sums of integer activations, for minimums and biases.

namespace bullpen::kernels {
namespace {

// The sum of 16 codes.
inline int32_t SumOf16(const int8_t* codes) {
  const __m128i bytes =
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
  const __m128i sums = _mm_sad_epu8(_mm_xor_si128(bytes, _mm_set1_epi8(-128)),
                                    _mm_setzero_si128());
  return _mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4) - 16 * 128;
}

// The sums of four groups of 32 codes, 16 bits each.
inline void StoreFourSums(const int8_t* codes, std::byte* out) {
  constexpr int kCodes = 32;
  const __m256i sign = _mm256_set1_epi8(-128);
  // Of each group four parts of a sum, in the 16 bits that are the group's.
  __m256i parts = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (int g = 0; g < 4; ++g) {
    const __m256i bytes = _mm256_loadu_si256(
        reinterpret_cast<const __m256i*>(codes + kCodes * g));
    const __m256i sums =
        _mm256_sad_epu8(_mm256_xor_si256(bytes, sign), _mm256_setzero_si256());
    parts = _mm256_or_si256(parts, _mm256_slli_epi64(sums, 16 * g));
  }
  const __m128i two = _mm_add_epi16(_mm256_castsi256_si128(parts),
                                    _mm256_extracti128_si256(parts, 1));
  const __m128i biased = _mm_add_epi16(two, _mm_unpackhi_epi64(two, two));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out),
                   _mm_sub_epi16(biased, _mm_set1_epi16(kCodes * 128)));
}

// The sums of one block's groups, as Int8Block says, of one row; `times` is
// SumTimes.
inline void StoreSums(const PanelFormat& format, int32_t times,
                      const int8_t* codes, std::byte* out) {
  const bool pairs = format.scale == ScaleCode::kProduct;
  int32_t g = 0;
  if (pairs && format.group_cols == 32) {
    for (; g + 4 <= format.groups(); g += 4) {
      StoreFourSums(codes, out);
      codes += 4 * format.group_cols;
      out += 8;
    }
  }
  for (; g < format.groups(); ++g) {
    int32_t sum = SumOf16(codes);
    if (format.group_cols == 32) sum += SumOf16(codes + 16);
    codes += format.group_cols;
    sum *= times;
    std::memcpy(out, &sum, pairs ? 2 : 4);
    out += pairs ? 2 : 4;
  }
}

}  // namespace
}  // namespace bullpen::kernels
