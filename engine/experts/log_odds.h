#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace bullpen {

// Predictors add evidence as log-odds, ln(p / (1 - p)). These forms are within
// 1e-3 of the exact values: enough to rank guesses, and plain enough for the
// compiler to vectorise.

inline constexpr float kMaxLogOdds = 8;

// x > 0, normal. The mantissa by a polynomial (least squares over [1, 2)).
inline float FastLog(float x) {
  const int32_t bits = std::bit_cast<int32_t>(x);
  const float exponent = static_cast<float>((bits >> 23) - 127);
  const float m = std::bit_cast<float>((bits & 0x7FFFFF) | 0x3F800000) - 1;
  const float log2 =
      m * (1.4380733f + m * (-0.6747667f + m * (0.3170007f + m * -0.0803073f)));
  return (exponent + log2) * 0.69314718f;
}

// e^x for |x| <= 80.
inline float FastExp(float x) {
  const float t = x * 1.44269504f;
  const float shifted = t + 12582912.0f;  // 1.5 * 2^23: rounds to an integer
  const float f = t - (shifted - 12582912.0f);
  const float power =
      1 + f * (0.69314718f +
               f * (0.24022651f + f * (0.05550411f + f * 0.00961813f)));
  const int32_t n = std::bit_cast<int32_t>(shifted) - 0x4B400000;
  return power * std::bit_cast<float>((n + 127) << 23);
}

// Clamped to [-kMaxLogOdds, kMaxLogOdds].
inline float LogOdds(float p) {
  p = std::min(std::max(p, 3.3535e-4f), 1 - 3.3535e-4f);
  return FastLog(p) - FastLog(1 - p);
}

inline float Probability(float log_odds) {
  const float x = std::min(std::max(log_odds, -30.0f), 30.0f);
  return 1 / (1 + FastExp(-x));
}

}  // namespace bullpen
