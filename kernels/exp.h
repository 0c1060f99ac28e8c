#pragma once

namespace bullpen::kernels {

// The one exponential of all kernels, within 1 ulp of the exact value:
//   n = round(x * log2 e), r = x - n ln 2 (ln 2 in two parts),
//   e^r = 1 + (r + r^2 * polynomial(r)), then times 2^n in two exact halves.
// exp_simd.h computes the same operations in the same order, so the same bits.
// Exp(NaN) = NaN, Exp(-inf) = 0, Exp(x) = +inf above ln(FLT_MAX); results below
// FLT_MIN are denormals, rounded once.
float Exp(float x);

// The constants of Exp, shared with the vector form.
struct ExpTerms {
  // Beyond these the result is 0 or +inf whatever x is; they keep n small.
  static constexpr float kLowest = -104.5f;
  static constexpr float kHighest = 89.0f;
  static constexpr float kLog2E = 1.44269504f;
  // Adding it leaves the rounded integer in the low bits of the mantissa.
  static constexpr float kRound = 12582912.0f;
  static constexpr float kLn2High = 0.693359375f;
  static constexpr float kLn2Low = -2.12194440e-4f;
  // Of r^7 / r^2 first (Cephes' minimax polynomial of degree 5).
  static constexpr float kPolynomial[6] = {1.9875691500e-4f, 1.3981999507e-3f,
                                           8.3334519073e-3f, 4.1665795894e-2f,
                                           1.6666665459e-1f, 5.0000001201e-1f};
};

}  // namespace bullpen::kernels
