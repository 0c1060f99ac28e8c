#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/int8_dot.h"
#include "kernels/int8_rows.h"
#include "kernels/int8_sums_simd.h"
#include "kernels/interleave_simd.h"

// Rows of activations as integers, in the order of Int8Block. AVX2 is enough
// for every instruction set: one row is rounded for many products.

namespace bullpen::kernels {
namespace {

inline constexpr int kMostBlockColumns = 256;

// The bits of the largest |x|: at infinity or NaN not below those of infinity.
inline int32_t LargestBits(const float* x, int32_t cols) {
  const __m256i absolute = _mm256_set1_epi32(0x7FFFFFFF);
  __m256i largest = _mm256_setzero_si256();
  for (int32_t c = 0; c < cols; c += 8) {
    const __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(x + c));
    largest = _mm256_max_epi32(largest, _mm256_and_si256(bits, absolute));
  }
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(largest),
                               _mm256_extracti128_si256(largest, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4E));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xB1));
  return _mm_cvtsi128_si32(four);
}

// Rounds a block of columns; returns its scale.
inline float Int8BlockOf(const float* x, int32_t cols, int8_t* codes) {
  const int32_t bits = LargestBits(x, cols);
  float largest;
  std::memcpy(&largest, &bits, sizeof(largest));
  constexpr int32_t kInfinity = 0x7F800000;
  if (bits >= kInfinity || largest < kLeastLargest) {
    std::memset(codes, 0, static_cast<size_t>(cols));
    return bits >= kInfinity ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
  }
  const __m256 inverse = _mm256_set1_ps(127.0f / largest);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (int32_t c = 0; c < cols; c += 32) {
    __m256i rounded[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      rounded[i] = _mm256_cvtps_epi32(
          _mm256_mul_ps(_mm256_loadu_ps(x + c + 8 * i), inverse));
    }
    const __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(rounded[0], rounded[1]),
                           _mm256_packs_epi32(rounded[2], rounded[3]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + c),
                        _mm256_permutevar8x32_epi32(bytes, order));
  }
  return largest / 127.0f;
}

// Of a row: scales, sums and codes, four bytes each.
inline int64_t RowWords(const PanelFormat& format, int64_t cols) {
  return cols / 4 + cols / format.block_cols * (1 + SumWords(format));
}

// Rounds a row: a tile of one. Returns its end.
inline std::byte* Int8RowOf(const PanelFormat& format, const float* x,
                            int32_t cols, std::byte* out) {
  const int64_t header = 4 * (1 + SumWords(format));
  const int32_t times = SumTimes(format);
  for (const float* end = x + cols; x < end; x += format.block_cols) {
    int8_t* codes = reinterpret_cast<int8_t*>(out + header);
    const float scale = Int8BlockOf(x, format.block_cols, codes);
    std::memcpy(out, &scale, sizeof(scale));
    StoreSums(format, times, codes, out + 4);
    out += header + format.block_cols;
  }
  return out;
}

// A tile of `tokens` rows of x.
template <int kMostTokens>
void Int8Rows(const PanelFormat& format, const float* const* rows, int tokens,
              int32_t cols, std::byte* tile) {
  constexpr int64_t kMostBytes = Int8RowBytes(kMostBlockColumns);
  if (tokens == 1) {
    Int8RowOf(format, rows[0], cols, tile);
    return;
  }
  // A few columns at a time, for the first-level cache.
  alignas(32) std::byte rounded[kMostTokens * kMostBytes];
  const std::byte* parts[kMostTokens];
  for (int32_t first = 0; first < cols; first += kMostBlockColumns) {
    const int32_t some = std::min(cols - first, kMostBlockColumns);
    for (int t = 0; t < tokens; ++t) {
      std::byte* part = rounded + t * kMostBytes;
      Int8RowOf(format, rows[t] + first, some, part);
      parts[t] = part;
    }
    const int64_t words = RowWords(format, some);
    Interleave(parts, tokens, words, tile);
    tile += 4 * words * tokens;
  }
}

}  // namespace
}  // namespace bullpen::kernels
