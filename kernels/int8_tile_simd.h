#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/int8_dot.h"
#include "kernels/int8_factors_simd.h"
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
  using Factors = Int8Factors<V, kType, kTokens>;

  static constexpr const PanelFormat& kFormat = FormatOf(kType);
  static constexpr int kBias = BiasOf<V, kType>();

  [[gnu::always_inline]] void Prefetch(const std::byte* group) const {
    if (ahead_ == 0) return;
    PrefetchGroup<1>(group, 0, ahead_, kFormat.group_bytes());
  }

  // Few rows add what two groups' factors give when they have read them. With
  // more there are no registers for it, and it waits for the block's end, where
  // so many steps in a row let nothing of the next block be asked for.
  static constexpr bool kFactorsAtOnce = kTokens <= 2;

  // Groups with integer factors: sums of the whole block, then its scales.
  void AddProductBlock(const std::byte* w, const std::byte* x, F* sums) const {
    Ints block[kTokens];
    Ints minimums[kTokens];
    for (int t = 0; t < kTokens; ++t) block[t] = minimums[t] = V::ZeroInts();
    // The header is needed last, but a CPU's prefetchers follow what is asked
    // for in order.
    __builtin_prefetch(w);
    if (ahead_ != 0) __builtin_prefetch(w + ahead_);
    for (int32_t g = 0; g < kFormat.groups(); g += 2) {
      for (int32_t i = g; i < g + 2; ++i) {
        const std::byte* group = Factors::GroupAt(w, i);
        Prefetch(group);
        x = group_.template Add<true>(
            group, x, V::MakeFactors(V::LoadInt8(group)), block);
      }
      if constexpr (kFactorsAtOnce && kBias != 0) {
        Factors::template Add<-kBias>(w, 0, g, x_sums_, block);
      }
      if constexpr (kFactorsAtOnce && kFormat.minimum) {
        Factors::template Add<1>(w, kPanelRows, g, x_sums_, minimums);
      }
    }
    if constexpr (!kFactorsAtOnce && kBias != 0) {
      Factors::template AddAll<-kBias>(w, 0, x_sums_, block);
    }
    AddScaled(V::template LoadAs<DType::kF16>(w, 0), block, sums);
    if constexpr (kFormat.minimum) {
      if constexpr (!kFactorsAtOnce) {
        Factors::template AddAll<1>(w, kPanelRows, x_sums_, minimums);
      }
      AddScaled(
          V::Negate(V::template LoadAs<DType::kF16>(w + 2 * kPanelRows, 0)),
          minimums, sums);
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

  static int32_t SumAt(const std::byte* x_sums, int t) {
    int32_t sum;
    std::memcpy(&sum, x_sums + 4 * t, sizeof(sum));
    return sum;
  }

  // Groups with float scales.
  void AddPlainBlock(const std::byte* w, const std::byte* x, F* sums) const {
    const std::byte* x_sums = x_sums_;
    for (int32_t g = 0; g < kFormat.groups(); ++g) {
      Prefetch(w);
      Ints dots[kTokens];
#pragma GCC unroll 32
      for (int t = 0; t < kTokens; ++t) {
        dots[t] = V::SetInts(-kBias / SumTimes(kFormat) * SumAt(x_sums, t));
      }
      x = group_.template Add<false>(w, x, V::ZeroInts(), dots);
      AddScaled(LoadScales<V>(kFormat.scale, w, nullptr), dots, sums);
      if constexpr (kFormat.minimum) {
        const std::byte* minimums = w + kPanelRows * kFormat.scale_bytes();
#pragma GCC unroll 32
        for (int t = 0; t < kTokens; ++t) {
          dots[t] = V::SetInts(SumAt(x_sums, t));
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
