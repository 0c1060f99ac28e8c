#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/broadcast_avx512.h"
#include "kernels/int8_dot.h"
#include "kernels/split_codes.h"

// Integers of sixteen lanes on AVX-512 F + BW + VNNI: the codes of block types
// and dot products of them; see codes_avx2.h.
namespace bullpen::kernels {
namespace {

struct Avx512Codes {
  struct Codes {
    __m512i v;
  };
  struct Ints {
    __m512i v;
  };
  using Dots = Ints;
  using Factors = Ints;
  using Pairs = Ints;
  using Map = Codes;

  static constexpr int kInt8Tokens = 12;

  static Int8Function ChooseInt8(DType type, int tokens) {
    return ChooseInt8Avx512(type, tokens);
  }
  static constexpr bool TakesSigns(const PanelFormat&) { return false; }
  // Sums have 32 bits: a group is one run.
  static constexpr int NarrowVectors(const PanelFormat& format) {
    return format.group_cols / 4;
  }

  static Map MakeMap(const int8_t* values, int bias) {
    const __m128i table =
        _mm_add_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)),
                     _mm_set1_epi8(static_cast<char>(bias)));
    return {_mm512_broadcast_i32x4(table)};
  }

  template <int kBits, bool kMapped>
  static Codes LoadCodes(const std::byte* codes, int v, Map map) {
    if constexpr (kBits == 8) {
      return {Load64(codes + v * 64)};
    } else if constexpr (kBits == 4) {
      const __m512i pair = Load64(codes + v / 2 * 64);
      const __m512i low = _mm512_and_si512(
          v % 2 == 0 ? pair : _mm512_srli_epi16(pair, 4), _mm512_set1_epi8(15));
      return {kMapped ? _mm512_shuffle_epi8(map.v, low) : low};
    } else {
      if (v < WholeVectors(kBits)) {
        return {_mm512_and_si512(Load64(codes + v * 64),
                                 _mm512_set1_epi8((1 << kBits) - 1))};
      }
      __m512i code = _mm512_setzero_si512();
#pragma GCC unroll 3
      for (int i = 0; i < kCodePieces; ++i) {
        const CodePiece& piece = SplitOf(kBits, v).pieces[i];
        if (piece.bits == 0) continue;
        const __m512i moved =
            _mm512_srli_epi16(Load64(codes + piece.vector * 64), piece.shift());
        const __m512i mask = _mm512_set1_epi8(static_cast<char>(piece.mask()));
        code = _mm512_or_si512(code, _mm512_and_si512(moved, mask));
      }
      return {code};
    }
  }
  static Codes Minus(Codes a, int offset) {
    return {_mm512_sub_epi8(a.v, _mm512_set1_epi8(static_cast<char>(offset)))};
  }
  static Codes ToUnsigned(Codes a) {
    return {_mm512_xor_si512(a.v, _mm512_set1_epi8(-128))};
  }
  static Ints ZeroInts() { return {_mm512_setzero_si512()}; }
  static Ints SetInts(int32_t a) { return {_mm512_set1_epi32(a)}; }
  static Ints LoadInt8(const std::byte* p) {
    return {_mm512_cvtepi8_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  static Factors MakeFactors(Ints a) { return a; }
  static Pairs MakePairs(Ints a, Ints b) {
    return {
        _mm512_mask_blend_epi16(0xAAAAAAAA, a.v, _mm512_slli_epi32(b.v, 16))};
  }
  static Pairs Multiply(Pairs a, int b) {
    return {
        _mm512_mullo_epi16(a.v, _mm512_set1_epi16(static_cast<int16_t>(b)))};
  }
  static Ints AddProducts(Ints sum, Pairs a, const std::byte* x) {
    return {DotPairs(sum.v, a.v, x)};
  }
  static Dots FirstDots(Codes a, const std::byte* x) {
    return AddDots(ZeroInts(), a, x);
  }
  static Dots AddDots(Dots dots, Codes a, const std::byte* x) {
    return {DotBytes(dots.v, a.v, x)};
  }
  static Ints Widen(Ints sum, Dots dots) {
    return {_mm512_add_epi32(sum.v, dots.v)};
  }
  static Ints Widen(Ints sum, Dots dots, Factors factors) {
    return {_mm512_add_epi32(sum.v, _mm512_mullo_epi32(dots.v, factors.v))};
  }

 private:
  // One load for all that is made of it.
  static __m512i Load64(const std::byte* p) {
    __m512i a = _mm512_loadu_si512(p);
    __asm__("" : "+v"(a));
    return a;
  }
};

}  // namespace
}  // namespace bullpen::kernels
