#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/int8_dot.h"

// The dot products of one group of a panel with integer activations.

namespace bullpen::kernels {
namespace {

// What is added to each integer to make an operand without a sign.
template <typename V, DType kType>
constexpr int BiasOf() {
  return V::TakesSigns(FormatOf(kType)) ? 0 : -LeastOfCode(FormatOf(kType));
}

template <typename V, DType kType, int kTokens>
class Int8Group {
 public:
  using Ints = typename V::Ints;
  using Factors = typename V::Factors;

  Int8Group()
      : map_(V::MakeMap(
            kFormat.values != nullptr ? kFormat.values : kUnsignedValues,
            kBias)) {}

  // block += factors (1 if not kProduct) * the dot products of the group with
  // the codes at x; returns where x goes on.
  template <bool kProduct>
  const std::byte* Add(const std::byte* group, const std::byte* x,
                       Factors factors, Ints* block) const {
    return AddFrom<kProduct, 0>(group + kFormat.group_header_bytes(), x,
                                factors, block);
  }

 private:
  static constexpr const PanelFormat& kFormat = FormatOf(kType);
  static constexpr int kBias = BiasOf<V, kType>();
  static constexpr int kBits = kFormat.code_bits;
  static constexpr bool kSigned = V::TakesSigns(kFormat);
  static constexpr int kVectors = V::NarrowVectors(kFormat);
  // Codes of 4 bits that are no operands as they are.
  static constexpr bool kMapped = kBits == 4 && SpanOfCode(kFormat) > 15;
  // Signs come from x: few rows of it, and no code is -128.
  static constexpr bool kFromX = kTokens <= 2 && LeastOfCode(kFormat) > -128;

  template <bool kProduct, int kFirst>
  const std::byte* AddFrom(const std::byte* codes, const std::byte* x,
                           Factors factors, Ints* block) const {
    x = AddVectors<kProduct, kFirst>(codes, x, factors, block);
    constexpr int kNext = kFirst + kVectors;
    if constexpr (4 * kNext < kFormat.group_cols) {
      return AddFrom<kProduct, kNext>(codes, x, factors, block);
    }
    return x;
  }

  // kVectors vectors of four columns, from vector kFirst on.
  template <bool kProduct, int kFirst>
  const std::byte* AddVectors(const std::byte* codes, const std::byte* x,
                              Factors factors, Ints* block) const {
    typename V::Dots dots[kTokens];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      typename V::Codes operand =
          V::template LoadCodes<kBits, kMapped>(codes, kFirst + v, map_);
      if constexpr (kBits == 8 && !kSigned) {
        operand = V::ToUnsigned(operand);
      }
#pragma GCC unroll 32
      for (int t = 0; t < kTokens; ++t) {
        if constexpr (kSigned) {
          dots[t] = V::template SignedDots<kFromX>(operand, x + 4 * t);
        } else {
          dots[t] = v == 0 ? V::FirstDots(operand, x + 4 * t)
                           : V::AddDots(dots[t], operand, x + 4 * t);
        }
      }
      x += 4 * kTokens;
    }
#pragma GCC unroll 32
    for (int t = 0; t < kTokens; ++t) {
      block[t] = kProduct ? V::Widen(block[t], dots[t], factors)
                          : V::Widen(block[t], dots[t]);
    }
    return x;
  }

  const typename V::Map map_;
};

}  // namespace
}  // namespace bullpen::kernels
