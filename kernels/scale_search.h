#pragma once

#include <algorithm>

namespace bullpen::kernels {

// Scales for quantising a group of weights with the least weighted squared
// error: candidates around the one that the extreme values give, each mended
// by the least-squares fit for the codes that it leads to (GGML's method).

// To the nearest integer, halves to even, where |value| < 2^22; others and NaN
// become some number beyond +-2^21. Adding 1.5 * 2^23 rounds to integers, and
// compilers make vectors of it.
inline float Nearest(float value) {
  constexpr float kRounds = 12582912.0f;
  return (value + kRounds) - kRounds;
}
inline int NearestInt(float value) {
  constexpr float kMost = 4e6f;
  return static_cast<int>(Nearest(std::min(std::max(-kMost, value), kMost)));
}

// Squares weigh as each function says, or as `importance` does if that is not
// null.

// x[0 .. count), at most 32, as scale * q, -half <= q < half; squares weigh
// x^2.
float SearchScale(const float* x, int count, int half, const float* importance);

struct Scaled {
  float scale = 0;
  float minimum = 0;  // >= 0
};

// x[0 .. 32) as scale * q - minimum, 0 <= q <= most; squares weigh |x| plus
// the root of the mean square.
Scaled SearchScaleAndMinimum(const float* x, int most, const float* importance);

// x[0 .. 32) as d * kIq4Values[code]; squares weigh x^2.
float SearchIq4Scale(const float* x, const float* importance);
// The code of the value nearest to x.
int NearestIq4(float x);

}  // namespace bullpen::kernels
