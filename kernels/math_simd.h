#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/exp.h"
#include "kernels/types.h"

// Functions of whole vectors that the oracle defines in scalar form.
namespace bullpen::kernels {
namespace {

// kernels/exp.h, lane by lane. Inlined: a call would pass AVX2's sixteen lanes
// through memory and load the constants again.
template <typename V>
[[gnu::always_inline]] inline typename V::F ExpLanes(typename V::F x) {
  using T = ExpTerms;
  // NaN passes, being the second operand.
  x = V::Min(V::Set(T::kHighest), x);
  x = V::Max(V::Set(T::kLowest), x);
  const typename V::F rounded = V::Fma(x, V::Set(T::kLog2E), V::Set(T::kRound));
  const typename V::F n = V::Sub(rounded, V::Set(T::kRound));
  typename V::F r = V::Fma(n, V::Set(-T::kLn2High), x);
  r = V::Fma(n, V::Set(-T::kLn2Low), r);
  typename V::F p = V::Set(T::kPolynomial[0]);
#pragma GCC unroll 5
  for (int i = 1; i < 6; ++i) p = V::Fma(p, r, V::Set(T::kPolynomial[i]));
  const typename V::F e = V::Add(V::Set(1.0f), V::Fma(p, V::Mul(r, r), r));
  return V::ScaleByPower(e, rounded);
}

// g / (1 + Exp(-g)).
template <typename V>
[[gnu::always_inline]] inline typename V::F SiluLanes(typename V::F g) {
  const typename V::F e = ExpLanes<V>(V::Negate(g));
  return V::Div(g, V::Add(V::Set(1.0f), e));
}

// 1, 2, ..., 16 lanes: all of a vector, or its first n.
template <typename V>
typename V::F LoadLanes(const float* p, int n) {
  return n == 16 ? V::Load(p) : V::LoadFirst(p, n);
}
template <typename V>
void StoreLanes(float* p, int n, typename V::F a) {
  if (n == 16) {
    V::Store(p, a);
  } else {
    V::StoreFirst(p, n, a);
  }
}

template <typename V, DType kType>
typename V::F LoadLanesAs(const void* base, int64_t index, int n) {
  if (n == 16) return V::template LoadAs<kType>(base, index);
  if constexpr (kType == DType::kF32) {
    return V::LoadFirst(static_cast<const float*>(base) + index, n);
  } else {
    uint16_t elements[16] = {};
    std::memcpy(elements, static_cast<const uint16_t*>(base) + index,
                static_cast<size_t>(n) * sizeof(uint16_t));
    return V::template LoadAs<kType>(elements, 0);
  }
}

// ((p0+p4)+(p2+p6)) + ((p1+p5)+(p3+p7)).
inline float SumEight(__m256 p) {
  const __m128 four =
      _mm_add_ps(_mm256_castps256_ps128(p), _mm256_extractf128_ps(p, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// Halves are added until one is left.
template <typename V>
float SumSixteen(typename V::F a) {
  return SumEight(_mm256_add_ps(V::Low(a), V::High(a)));
}

template <typename V>
float LargestLane(typename V::F a) {
  const __m256 eight = _mm256_max_ps(V::Low(a), V::High(a));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight),
                                 _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

}  // namespace
}  // namespace bullpen::kernels
