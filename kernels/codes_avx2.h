#pragma once

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "kernels/int8_dot.h"
#include "kernels/lanes_avx2.h"

// Integers of sixteen lanes on AVX2: the codes of block types (panel_format.h)
// and dot products of them. codes_avx512.h offers the same vocabulary.
namespace bullpen::kernels {
namespace {

struct Avx2Codes {
  // Of each lane four columns, one byte each.
  struct Codes {
    __m256i lo, hi;
  };
  // A 32-bit integer of each lane.
  struct Ints {
    __m256i lo, hi;
  };
  using Dots = Ints;     // two 16-bit sums of each lane
  using Factors = Ints;  // two equal 16-bit integers of each lane
  using Pairs = Ints;    // two 16-bit integers of each lane
  using Map = Codes;     // what 4-bit codes stand for

  static constexpr int kInt8Tokens = 5;  // rows of x in one tile

  static Int8Function ChooseInt8(DType type, int tokens) {
    return ChooseInt8Avx2(type, tokens);
  }
  // A 16-bit sum has room for so much of codes times 8-bit integers.
  static constexpr int kNarrowRoom = 32767 / (2 * 127);
  // Whether codes multiply with their signs (SignedDots), for want of room.
  static constexpr bool TakesSigns(const PanelFormat& format) {
    return SpanOfCode(format) > kNarrowRoom;
  }
  // Vectors of four columns that are added before sums are widened: 8 of 4-bit
  // codes, 4 of 5-bit ones and of MXFP4's values (0 to 24), 2 of 6-bit ones,
  // and 1 with signs.
  static constexpr int NarrowVectors(const PanelFormat& format) {
    if (TakesSigns(format)) return 1;
    const unsigned most = kNarrowRoom / SpanOfCode(format);
    return std::min<int>(std::bit_floor(most), format.group_cols / 4);
  }

  static Map MakeMap(const int8_t* values, int bias) {
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
    const __m256i sum =
        _mm256_add_epi8(table, _mm256_set1_epi8(static_cast<char>(bias)));
    return {sum, sum};
  }

  // Columns [4v, 4v + 4) of a group; `v` is a constant after unrolling. 4-bit
  // codes are mapped if kMapped.
  template <int kBits, bool kMapped>
  static Codes LoadCodes(const std::byte* codes, int v, Map map) {
    return {LoadHalfCodes<kBits, kMapped>(codes, v, 0, map.lo),
            LoadHalfCodes<kBits, kMapped>(codes, v, 1, map.hi)};
  }
  static Codes Minus(Codes a, int offset) {
    const __m256i b = _mm256_set1_epi8(static_cast<char>(offset));
    return {_mm256_sub_epi8(a.lo, b), _mm256_sub_epi8(a.hi, b)};
  }
  static Codes ToUnsigned(Codes a) {
    const __m256i b = _mm256_set1_epi8(-128);
    return {_mm256_xor_si256(a.lo, b), _mm256_xor_si256(a.hi, b)};
  }

  static Ints ZeroInts() {
    return {_mm256_setzero_si256(), _mm256_setzero_si256()};
  }
  static Ints SetInts(int32_t a) {
    return {_mm256_set1_epi32(a), _mm256_set1_epi32(a)};
  }
  static Ints LoadInt8(const std::byte* p) {
    return {_mm256_cvtepi8_epi32(
                _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))),
            _mm256_cvtepi8_epi32(
                _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8)))};
  }
  // For Widen, of 8-bit integers.
  static Factors MakeFactors(Ints a) { return {Twice(a.lo), Twice(a.hi)}; }
  // a beside b, integers of 16 bits.
  static Pairs MakePairs(Ints a, Ints b) {
    return {_mm256_blend_epi16(a.lo, _mm256_slli_epi32(b.lo, 16), 0xAA),
            _mm256_blend_epi16(a.hi, _mm256_slli_epi32(b.hi, 16), 0xAA)};
  }
  static Pairs Multiply(Pairs a, int b) {
    const __m256i m = _mm256_set1_epi16(static_cast<int16_t>(b));
    return {_mm256_mullo_epi16(a.lo, m), _mm256_mullo_epi16(a.hi, m)};
  }
  // sum + the products of a with the two 16-bit integers at x.
  static Ints AddProducts(Ints sum, Pairs a, const std::byte* x) {
    const __m256i two = LoadFour(x);
    return {_mm256_add_epi32(sum.lo, _mm256_madd_epi16(a.lo, two)),
            _mm256_add_epi32(sum.hi, _mm256_madd_epi16(a.hi, two))};
  }
  // The products of unsigned codes with the four columns at x.
  static Dots FirstDots(Codes a, const std::byte* x) {
    const __m256i four = LoadFour(x);
    return {_mm256_maddubs_epi16(a.lo, four), _mm256_maddubs_epi16(a.hi, four)};
  }
  // The same, added to `dots`.
  static Dots AddDots(Dots dots, Codes a, const std::byte* x) {
    const Dots products = FirstDots(a, x);
    Dots sum = {_mm256_add_epi16(dots.lo, products.lo),
                _mm256_add_epi16(dots.hi, products.hi)};
    __asm__("" : "+x"(sum.lo), "+x"(sum.hi));
    return sum;
  }
  // The products of signed codes. With kFromX, x gives its signs to the codes,
  // none of which may be -128: one step less for few rows of x.
  template <bool kFromX>
  static Dots SignedDots(Codes a, const std::byte* x) {
    const __m256i four = LoadFour(x);
    if constexpr (kFromX) {
      const __m256i size = _mm256_abs_epi8(four);
      return {_mm256_maddubs_epi16(size, _mm256_sign_epi8(a.lo, four)),
              _mm256_maddubs_epi16(size, _mm256_sign_epi8(a.hi, four))};
    }
    return {_mm256_maddubs_epi16(_mm256_abs_epi8(a.lo),
                                 _mm256_sign_epi8(four, a.lo)),
            _mm256_maddubs_epi16(_mm256_abs_epi8(a.hi),
                                 _mm256_sign_epi8(four, a.hi))};
  }
  // sum + dots, and sum + dots * factors, in 32 bits.
  static Ints Widen(Ints sum, Dots dots) {
    const __m256i one = _mm256_set1_epi16(1);
    return Widen(sum, dots, {one, one});
  }
  static Ints Widen(Ints sum, Dots dots, Factors factors) {
    Ints wide = {
        _mm256_add_epi32(sum.lo, _mm256_madd_epi16(dots.lo, factors.lo)),
        _mm256_add_epi32(sum.hi, _mm256_madd_epi16(dots.hi, factors.hi))};
    __asm__("" : "+x"(wide.lo), "+x"(wide.hi));
    return wide;
  }
};

}  // namespace
}  // namespace bullpen::kernels
