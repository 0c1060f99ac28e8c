#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/types.h"

// The dot products of one group of a panel with integer activations.

namespace bullpen::kernels {
namespace {

// How codes become operands of dot products: how many bits they have, whether
// a map gives their values, how many vectors of four columns are added before
// the sums are widened, and whether the operands are signed.
template <int kBitsOf, bool kMappedTo, int kVectorsOf, bool kSignedOf>
struct CodeKind {
  static constexpr int kBits = kBitsOf;
  static constexpr bool kMapped = kMappedTo;
  static constexpr int kVectors = kVectorsOf;
  static constexpr bool kSigned = kSignedOf;
};

// What is added to each integer to make an operand without a sign.
template <typename Kind>
int BiasOf(const PanelFormat& format) {
  if (Kind::kSigned) return 0;
  if (Kind::kBits == 8) return 128;
  if (format.values == nullptr) return format.offset;
  return -*std::min_element(format.values, format.values + 16);
}

template <typename V, typename Kind, int kTokens>
class Int8Group {
 public:
  using Ints = typename V::Ints;
  using Factors = typename V::Factors;

  explicit Int8Group(const PanelFormat& format)
      : format_(format),
        map_(V::MakeMap(
            format.values != nullptr ? format.values : kUnsignedValues,
            BiasOf<Kind>(format))) {}

  // block += factors (1 if not kProduct) * the dot products of the group with
  // the codes at x; returns where x goes on.
  template <bool kProduct>
  const std::byte* Add(const std::byte* group, const std::byte* x,
                       Factors factors, Ints* block) const {
    return AddFrom<kProduct, 0>(group + format_.group_header_bytes(), x,
                                factors, block);
  }

 private:
  template <bool kProduct, int kFirst>
  const std::byte* AddFrom(const std::byte* codes, const std::byte* x,
                           Factors factors, Ints* block) const {
    x = AddVectors<kProduct, kFirst>(codes, x, factors, block);
    constexpr int kNext = kFirst + Kind::kVectors;
    if constexpr (kNext < 8) {
      if (4 * kNext < format_.group_cols) {
        return AddFrom<kProduct, kNext>(codes, x, factors, block);
      }
    }
    return x;
  }

  // Kind::kVectors vectors of four columns, from vector kFirst on.
  template <bool kProduct, int kFirst>
  const std::byte* AddVectors(const std::byte* codes, const std::byte* x,
                              Factors factors, Ints* block) const {
    typename V::Dots dots[kTokens];
#pragma GCC unroll 8
    for (int v = 0; v < Kind::kVectors; ++v) {
      typename V::Codes operand =
          V::template LoadCodes<Kind::kBits, Kind::kMapped>(
              codes, format_.group_cols, kFirst + v, map_);
      if constexpr (Kind::kBits == 8 && !Kind::kSigned) {
        operand = V::ToUnsigned(operand);
      }
#pragma GCC unroll 32
      for (int t = 0; t < kTokens; ++t) {
        if constexpr (Kind::kSigned) {
          dots[t] = V::SignedDots(operand, x + 4 * t);
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

  const PanelFormat& format_;
  const typename V::Map map_;
};

}  // namespace
}  // namespace bullpen::kernels
