#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/kv_layout.h"
#include "kernels/types.h"

// Single elements of the KV cache, for the oracle, and how int8 is rounded.
// Local to the including file, as vector code is.
namespace bullpen::kernels {
namespace {

// A vector less than this in all its elements is stored as zeros: the factor
// that scales it up would not be finite.
inline constexpr float kKvLeast = 0x1p-100f;
inline constexpr float kKvCodes = 127.0f;

// Of a vector whose largest element is `largest`; that is infinite or NaN if
// an element is.
struct KvScale {
  float scale = 0;    // of the codes
  float inverse = 0;  // of the elements; 0 if all codes are to be 0 or 127
};
inline KvScale KvScaleOf(float largest) {
  if (largest < kKvLeast) return {};
  if (!(largest <= std::numeric_limits<float>::max())) {
    return {.scale = largest, .inverse = 0};
  }
  return {.scale = largest / kKvCodes, .inverse = kKvCodes / largest};
}

// To nearest even; 127 for NaN, which its scale makes what it was.
inline int8_t KvCode(float x, float inverse) {
  float code = x * inverse;
  code = code < kKvCodes ? code : kKvCodes;
  code = code > -kKvCodes ? code : -kKvCodes;
  return static_cast<int8_t>(std::nearbyint(code));
}

inline float LoadKv(KvType type, const std::byte* base, int64_t index) {
  if (type == KvType::kInt8) {
    return static_cast<float>(static_cast<int8_t>(base[index]));
  }
  if (type == KvType::kF32) {
    return reinterpret_cast<const float*>(base)[index];
  }
  return ToFloat(reinterpret_cast<const uint16_t*>(base)[index], DType::kF16);
}

// Of the token at `position`, whose head has its elements at `base`.
inline float LoadKvScale(KvType type, const std::byte* base, int64_t position) {
  if (type != KvType::kInt8) return 1.0f;
  float scale;
  std::memcpy(
      &scale,
      base - KvScaleBytes(type) + position % kKvBlockTokens * sizeof(float),
      sizeof(float));
  return scale;
}

}  // namespace
}  // namespace bullpen::kernels
