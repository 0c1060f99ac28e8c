#include "kernels/exp.h"

#include <bit>
#include <cmath>
#include <cstdint>

namespace bullpen::kernels {
namespace {

// 2^n for n in [-126, 127].
float PowerOfTwo(int32_t n) {
  return std::bit_cast<float>(static_cast<uint32_t>(n + 127) << 23);
}

}  // namespace

float Exp(float x) {
  using T = ExpTerms;
  if (x != x) return x;
  x = x > T::kHighest ? T::kHighest : x < T::kLowest ? T::kLowest : x;
  const float rounded = std::fma(x, T::kLog2E, T::kRound);
  const float n = rounded - T::kRound;
  float r = std::fma(n, -T::kLn2High, x);
  r = std::fma(n, -T::kLn2Low, r);
  float p = T::kPolynomial[0];
  for (int i = 1; i < 6; ++i) p = std::fma(p, r, T::kPolynomial[i]);
  const float e = 1.0f + std::fma(p, r * r, r);
  const int32_t exponent =
      std::bit_cast<int32_t>(rounded) - std::bit_cast<int32_t>(T::kRound);
  const int32_t half = exponent >> 1;
  return e * PowerOfTwo(half) * PowerOfTwo(exponent - half);
}

}  // namespace bullpen::kernels
