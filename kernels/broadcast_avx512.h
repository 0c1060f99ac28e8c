#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

// Dot products with four bytes of memory, the same in every lane. The
// instructions can repeat them by themselves; gcc 12 does not know and loads
// them first, which costs a tenth of a tile's speed, so it gets assembly.
namespace bullpen::kernels {
namespace {

// clang folds the load itself; a sanitizer does not see what assembly reads.
#ifdef __clang__
inline constexpr bool kFoldByHand = false;
#elif __SANITIZE_ADDRESS__
inline constexpr bool kFoldByHand = false;
#else
inline constexpr bool kFoldByHand = true;
#endif

using FourBytes = std::byte[4];

inline __m512i LoadFour512(const std::byte* p) {
  int32_t four;
  std::memcpy(&four, p, sizeof(four));
  return _mm512_set1_epi32(four);
}

// sum + the products of unsigned bytes with the four signed ones at x.
inline __m512i DotBytes(__m512i sum, __m512i a, const std::byte* x) {
  if constexpr (kFoldByHand) {
    __asm__("vpdpbusd %2%{1to16%}, %1, %0"
            : "+v"(sum)
            : "v"(a), "m"(*reinterpret_cast<const FourBytes*>(x)));
    return sum;
  }
  return _mm512_dpbusd_epi32(sum, a, LoadFour512(x));
}

// sum + the products of 16-bit integers with the two at x.
inline __m512i DotPairs(__m512i sum, __m512i a, const std::byte* x) {
  if constexpr (kFoldByHand) {
    __asm__("vpdpwssd %2%{1to16%}, %1, %0"
            : "+v"(sum)
            : "v"(a), "m"(*reinterpret_cast<const FourBytes*>(x)));
    return sum;
  }
  return _mm512_dpwssd_epi32(sum, a, LoadFour512(x));
}

}  // namespace
}  // namespace bullpen::kernels
