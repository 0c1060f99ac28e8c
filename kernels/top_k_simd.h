#pragma once

#include <cstdint>
#include <limits>

#include "kernels/math_simd.h"

// Softmax over a row, and taking its largest elements one by one.

namespace bullpen::kernels {
namespace {

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
// What a candidate becomes that can no longer be chosen: Max and EqualLanes
// both pass over a NaN.
inline constexpr float kTaken = std::numeric_limits<float>::quiet_NaN();

// The largest of values[0, count), count a multiple of 16; kMinusInfinity if
// all are taken.
template <typename V>
float Largest(const float* values, int count) {
  typename V::F best = V::Set(kMinusInfinity);
  for (int i = 0; i < count; i += 16) best = V::Max(V::Load(values + i), best);
  return LargestLane<V>(best);
}

// Takes the largest; the lowest index of equals. count a multiple of 16.
template <typename V>
int TakeLargest(float* values, int count) {
  const typename V::F best = V::Set(Largest<V>(values, count));
  for (int i = 0; i < count; i += 16) {
    const uint32_t equal = V::EqualLanes(V::Load(values + i), best);
    if (equal != 0) {
      const int index = i + __builtin_ctz(equal);
      values[index] = kTaken;
      return index;
    }
  }
  __builtin_unreachable();  // CheckRoute: there are enough candidates.
}

// In place; the lanes up to a multiple of 16 are overwritten too.
template <typename V>
void Softmax(float* values, int count) {
  using F = typename V::F;
  F largest = V::Set(kMinusInfinity);
  for (int i = 0; i < count; i += 16) {
    largest = V::Max(
        V::Keep(V::Load(values + i), 0, count - i, V::Set(kMinusInfinity)),
        largest);
  }
  const F m = V::Set(LargestLane<V>(largest));
  __m256 sum = _mm256_setzero_ps();
  for (int i = 0; i < count; i += 16) {
    const F e = V::Keep(ExpLanes<V>(V::Sub(V::Load(values + i), m)), 0,
                        count - i, V::Zero());
    V::Store(values + i, e);
    sum = _mm256_add_ps(_mm256_add_ps(sum, V::Low(e)), V::High(e));
  }
  const F z = V::Set(SumEight(sum));
  for (int i = 0; i < count; i += 16) {
    V::Store(values + i, V::Div(V::Load(values + i), z));
  }
}

}  // namespace
}  // namespace bullpen::kernels
