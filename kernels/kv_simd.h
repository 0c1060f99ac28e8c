#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/kv_layout.h"
#include "kernels/math_simd.h"

// Vectors of the KV cache's elements.
namespace bullpen::kernels {
namespace {

// Sixteen elements from `index` on; int8 ones without their scale.
template <typename V, KvType kType>
typename V::F LoadKv(const std::byte* base, int64_t index) {
  if constexpr (kType == KvType::kInt8) {
    return V::FromInt8(base + index);
  } else if constexpr (kType == KvType::kF16) {
    return V::template LoadAs<DType::kF16>(base, index);
  } else {
    return V::template LoadAs<DType::kF32>(base, index);
  }
}

// The first n of sixteen; nothing is read behind them.
template <typename V, KvType kType>
typename V::F LoadKvLanes(const std::byte* base, int64_t index, int n) {
  if (n == kKvBlockTokens) return LoadKv<V, kType>(base, index);
  constexpr int64_t kBytes = KvElementBytes(kType);
  std::byte elements[kKvBlockTokens * kBytes] = {};
  std::memcpy(elements, base + index * kBytes, static_cast<size_t>(n * kBytes));
  return LoadKv<V, kType>(elements, 0);
}

// The scales of sixteen tokens, whose head has its elements at `base`.
template <typename V>
typename V::F LoadKvScales(const std::byte* base) {
  return V::Load(
      reinterpret_cast<const float*>(base - KvScaleBytes(KvType::kInt8)));
}

// Hints to bring these bytes into the L2: what is read later must not take the
// place of what is read now. Inlined first of all, as PrefetchGroup is.
template <int64_t kBytes>
[[gnu::always_inline]] inline void PrefetchLater(const std::byte* p) {
#pragma GCC unroll 8
  for (int64_t line = 0; line < kBytes; line += 64) {
    __builtin_prefetch(p + line, 0, 2);
  }
}

// Rows of eight become columns.
inline void TransposeEight(const __m256* in, __m256* out) {
  __m256 pairs[8], fours[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(in[i], in[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(in[i], in[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    fours[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    fours[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xEE);
    fours[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    fours[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xEE);
  }
  for (int i = 0; i < 4; ++i) {
    out[i] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20);
    out[i + 4] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31);
  }
}

// Elements [first, first + width) of a block's keys, without their scales, to
// rows of [16][stride] floats.
template <typename V, KvType kType>
void TransposeBlock(const std::byte* keys, int64_t first, int64_t width,
                    int64_t stride, float* out) {
  int64_t d = 0;
  for (; d + 8 <= width; d += 8) {
    __m256 low[8], high[8], columns[8];
    for (int i = 0; i < 8; ++i) {
      const typename V::F row =
          LoadKv<V, kType>(keys, (first + d + i) * kKvBlockTokens);
      low[i] = V::Low(row);
      high[i] = V::High(row);
    }
    TransposeEight(low, columns);
    for (int i = 0; i < 8; ++i) {
      _mm256_storeu_ps(out + i * stride + d, columns[i]);
    }
    TransposeEight(high, columns);
    for (int i = 0; i < 8; ++i) {
      _mm256_storeu_ps(out + (i + 8) * stride + d, columns[i]);
    }
  }
  for (; d < width; ++d) {
    float row[kKvBlockTokens];
    V::Store(row, LoadKv<V, kType>(keys, (first + d) * kKvBlockTokens));
    for (int i = 0; i < kKvBlockTokens; ++i) out[i * stride + d] = row[i];
  }
}

}  // namespace
}  // namespace bullpen::kernels
