#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/int8_dot.h"
#include "kernels/int8_group_simd.h"
#include "kernels/prefetch.h"
#include "kernels/quant_tile_simd.h"

// The inner loop of products with block types and integer activations.

namespace bullpen::kernels {
namespace {

// One panel against a tile of rows of x: the weights are one stream, which
// memory delivers fastest.
template <typename V, DType kType, int kTokens>
class Int8Tile {
 public:
  // Writes sums [tokens][16] of the blocks [w, end), asking for what stands
  // `ahead` bytes behind them, if not 0.
  void Run(const std::byte* w, const std::byte* end, int64_t ahead,
           const std::byte* x, float* out) {
    ahead_ = ahead;
    F sums[kTokens];
    for (F& sum : sums) sum = V::Zero();
    for (; w < end; w += kFormat.block_bytes()) {
      x_scales_ = reinterpret_cast<const float*>(x);
      x_sums_ = x + 4 * kTokens;
      x += 4 * (1 + SumWords(kFormat)) * kTokens;
      if constexpr (kFormat.scale == ScaleCode::kProduct) {
        AddProductBlock(w, x, sums);
      } else {
        AddPlainBlock(w, x, sums);
      }
      x += kFormat.block_cols * kTokens;
    }
#pragma GCC unroll 32
    for (int t = 0; t < kTokens; ++t) V::Store(out + t * kPanelRows, sums[t]);
  }

 private:
  using F = typename V::F;
  using Ints = typename V::Ints;

  static constexpr const PanelFormat& kFormat = FormatOf(kType);
  static constexpr int kBias = BiasOf<V, kType>();

  [[gnu::always_inline]] void Prefetch(const std::byte* group) const {
    if (ahead_ == 0) return;
    PrefetchGroup<1>(group, 0, ahead_, kFormat.group_bytes());
  }

  // Groups with integer factors: sums of the whole block, then its scales.
  void AddProductBlock(const std::byte* w, const std::byte* x, F* sums) const {
    Ints block[kTokens];
    for (Ints& sum : block) sum = V::ZeroInts();
    // The header is needed last, but a CPU's prefetchers follow what is asked
    // for in order.
    __builtin_prefetch(w);
    if (ahead_ != 0) __builtin_prefetch(w + ahead_);
    const std::byte* group = w + kFormat.block_header_bytes();
    for (int32_t g = 0; g < kFormat.groups(); ++g) {
      Prefetch(group);
      x = group_.template Add<true>(group, x,
                                    V::MakeFactors(V::LoadInt8(group)), block);
      group += kFormat.group_bytes();
    }
    if constexpr (kBias != 0) AddFactors<-kBias>(w, 0, block);
    AddScaled(V::template LoadAs<DType::kF16>(w, 0), block, sums);
    if constexpr (kFormat.minimum) {
      for (Ints& sum : block) sum = V::ZeroInts();
      AddFactors<1>(w, kPanelRows, block);
      AddScaled(
          V::Negate(V::template LoadAs<DType::kF16>(w + 2 * kPanelRows, 0)),
          block, sums);
    }
  }

  // block += kTimes * (the groups' factors at `offset`) * sums of x, two groups
  // at a time.
  template <int kTimes>
  void AddFactors(const std::byte* w, int offset, Ints* block) const {
    const std::byte* group = w + kFormat.block_header_bytes() + offset;
    const std::byte* x_sums = x_sums_;
    for (int32_t g = 0; g < kFormat.groups(); g += 2) {
      typename V::Pairs factors = V::MakePairs(
          V::LoadInt8(group), V::LoadInt8(group + kFormat.group_bytes()));
      if constexpr (kTimes != 1) factors = V::Multiply(factors, kTimes);
      AddToSums(factors, x_sums, block);
      x_sums += 4 * kTokens;
      group += 2 * kFormat.group_bytes();
    }
  }
  static void AddToSums(typename V::Pairs factors, const std::byte* x_sums,
                        Ints* block) {
#pragma GCC unroll 32
    for (int t = 0; t < kTokens; ++t) {
      block[t] = V::AddProducts(block[t], factors, x_sums + 4 * t);
    }
  }

  // sums += scale * scales of x * block.
  void AddScaled(F scale, const Ints* block, F* sums) const {
#pragma GCC unroll 32
    for (int t = 0; t < kTokens; ++t) {
      sums[t] = V::Fma(V::Mul(scale, V::Set(x_scales_[t])),
                       V::ToFloat(block[t]), sums[t]);
    }
  }

  // Groups with float scales.
  void AddPlainBlock(const std::byte* w, const std::byte* x, F* sums) const {
    const typename V::Pairs minus_bias =
        V::MakePairs(V::SetInts(-kBias), V::ZeroInts());
    const std::byte* x_sums = x_sums_;
    for (int32_t g = 0; g < kFormat.groups(); ++g) {
      Prefetch(w);
      Ints dots[kTokens];
      for (Ints& dot : dots) dot = V::ZeroInts();
      x = group_.template Add<false>(w, x, V::ZeroInts(), dots);
      if constexpr (kBias != 0) AddToSums(minus_bias, x_sums, dots);
      AddScaled(LoadScales<V>(kFormat.scale, w, nullptr), dots, sums);
      if constexpr (kFormat.minimum) {
        const std::byte* minimums = w + kPanelRows * kFormat.scale_bytes();
#pragma GCC unroll 32
        for (int t = 0; t < kTokens; ++t) {
          int32_t sum;
          std::memcpy(&sum, x_sums + 4 * t, sizeof(sum));
          dots[t] = V::SetInts(sum);
        }
        AddScaled(V::Negate(LoadScales<V>(kFormat.scale, minimums, nullptr)),
                  dots, sums);
      }
      x_sums += 4 * kTokens;
      w += kFormat.group_bytes();
    }
  }

  const Int8Group<V, kType, kTokens> group_;
  int64_t ahead_ = 0;
  // Of the block at hand.
  const float* x_scales_ = nullptr;
  const std::byte* x_sums_ = nullptr;
};

}  // namespace
}  // namespace bullpen::kernels
