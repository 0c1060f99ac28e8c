#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/types.h"

// The integer factors of a block's groups, which multiply sums of x.

namespace bullpen::kernels {
namespace {

template <typename V, DType kType, int kTokens>
struct Int8Factors {
  static constexpr const PanelFormat& kFormat = FormatOf(kType);
  using Ints = typename V::Ints;
  using Pairs = typename V::Pairs;

  static const std::byte* GroupAt(const std::byte* w, int32_t g) {
    return w + kFormat.block_header_bytes() + g * kFormat.group_bytes();
  }

  // sum += the pairs * two sums of x.
  static void AddToSums(Pairs pairs, const std::byte* x_sums, Ints* sum) {
#pragma GCC unroll 32
    for (int t = 0; t < kTokens; ++t) {
      sum[t] = V::AddProducts(sum[t], pairs, x_sums + 4 * t);
    }
  }

  // sum += kTimes * (the factors at `offset` of groups g and g + 1 of the block
  // at w) * their sums of x; `x_sums` are the block's.
  template <int kTimes>
  static void Add(const std::byte* w, int offset, int32_t g,
                  const std::byte* x_sums, Ints* sum) {
    Pairs pairs = V::MakePairs(V::LoadInt8(GroupAt(w, g) + offset),
                               V::LoadInt8(GroupAt(w, g + 1) + offset));
    if constexpr (kTimes != 1) pairs = V::Multiply(pairs, kTimes);
    AddToSums(pairs, x_sums + 2 * g * kTokens, sum);
  }
  // The same of all groups.
  template <int kTimes>
  static void AddAll(const std::byte* w, int offset, const std::byte* x_sums,
                     Ints* sum) {
    for (int32_t g = 0; g < kFormat.groups(); g += 2) {
      Add<kTimes>(w, offset, g, x_sums, sum);
    }
  }
};

}  // namespace
}  // namespace bullpen::kernels
