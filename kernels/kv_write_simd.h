#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels/kv_element.h"
#include "kernels/kv_layout.h"
#include "kernels/math_simd.h"
#include "kernels/parallel.h"

namespace bullpen::kernels {
namespace {

template <KvType kType>
using KvStored = std::conditional_t<
    kType == KvType::kF32, float,
    std::conditional_t<kType == KvType::kF16, uint16_t, int8_t>>;

// The largest |x[i]|; NaN if an element is.
template <typename V>
float LargestMagnitude(const float* x, int32_t count) {
  using F = typename V::F;
  F largest = V::Zero();
  uint32_t numbers = 0xFFFF;
  for (int32_t i = 0; i < count; i += 16) {
    const F a = LoadLanes<V>(x + i, std::min(count - i, 16));
    numbers &= V::EqualLanes(a, a);
    largest = V::Max(V::Max(a, V::Negate(a)), largest);
  }
  if (numbers != 0xFFFF) return std::numeric_limits<float>::quiet_NaN();
  return LargestLane<V>(largest);
}

// KvCode, lane by lane.
template <typename V>
void StoreCodes(int8_t* out, typename V::F x, typename V::F inverse) {
  typename V::F code = V::Min(V::Mul(x, inverse), V::Set(kKvCodes));
  code = V::Max(code, V::Set(-kKvCodes));
  // Adding 1.5 * 2^23 leaves the rounded integer in the low bits.
  float rounded[16];
  V::Store(rounded, V::Add(code, V::Set(12582912.0f)));
  for (int lane = 0; lane < 16; ++lane) {
    out[lane] = static_cast<int8_t>(std::bit_cast<uint32_t>(rounded[lane]));
  }
}

// x[0, count) as elements `step` apart; `scale` is where an int8 token has its
// own.
template <typename V, KvType kType>
void StoreElements(const float* x, int32_t count, int64_t step, std::byte* base,
                   std::byte* scale) {
  KvStored<kType>* out = reinterpret_cast<KvStored<kType>*>(base);
  KvScale factors;
  if constexpr (kType == KvType::kInt8) {
    factors = KvScaleOf(LargestMagnitude<V>(x, count));
    std::memcpy(scale, &factors.scale, sizeof(float));
  }
  for (int32_t i = 0; i < count; i += 16) {
    const int n = std::min(count - i, 16);
    const typename V::F a = LoadLanes<V>(x + i, n);
    KvStored<kType> elements[16];
    if constexpr (kType == KvType::kF32) {
      V::Store(elements, a);
    } else if constexpr (kType == KvType::kF16) {
      V::StoreF16(elements, a);
    } else {
      StoreCodes<V>(elements, a, V::Set(factors.inverse));
    }
    for (int lane = 0; lane < n; ++lane) {
      out[(i + lane) * step] = elements[lane];
    }
  }
}

// One head of all rows of a sequence.
template <typename V, KvType kType>
void KvWriteHead(const KvWriteArgs& args, const KvSequence& sequence,
                 int64_t head) {
  constexpr int64_t kBytes = KvElementBytes(kType);
  const KvLayer& layer = args.layer;
  for (int64_t i = 0; i < sequence.rows; ++i) {
    const int64_t row = sequence.first_row + i;
    const int64_t position = sequence.first_position + i;
    const int64_t lane = position % kKvBlockTokens;
    const int64_t scale = lane * sizeof(float) - KvScaleBytes(kType);
    const int32_t block = sequence.blocks[position / kKvBlockTokens];
    std::byte* keys = layer.keys(block, head);
    StoreElements<V, kType>(args.k + row * args.k_stride + head * layer.k_dim,
                            layer.k_dim, kKvBlockTokens, keys + lane * kBytes,
                            keys + scale);
    if (layer.value_in_key) continue;
    std::byte* values = layer.values(block, head);
    StoreElements<V, kType>(
        args.v + row * args.v_stride + head * layer.v_dim, layer.v_dim, 1,
        values + lane * layer.v_dim * kBytes, values + scale);
  }
}

// Split by heads: the rows of one head share cache lines.
template <typename V, KvType kType>
void KvWriteHeads(const KvWriteArgs& args, Stream& stream) {
  int64_t rows = 0;
  for (int32_t s = 0; s < args.sequence_count; ++s) {
    rows += args.sequences[s].rows;
  }
  if (rows == 0) return;
  const int64_t heads = args.layer.kv_heads;
  // A scattered store costs about as much as four vector operations.
  const int64_t row_work = int64_t{args.layer.k_dim + args.layer.v_dim} * 4;
  ForParts(stream, args.sequence_count * heads,
           row_work * rows / args.sequence_count,
           [&](int64_t begin, int64_t end, int) {
             for (int64_t i = begin; i < end; ++i) {
               KvWriteHead<V, kType>(args, args.sequences[i / heads],
                                     i % heads);
             }
           });
}

template <typename V>
absl::Status KvWrite(const KvWriteArgs& args, Stream& stream) {
  switch (args.layer.type) {
    case KvType::kF32:
      KvWriteHeads<V, KvType::kF32>(args, stream);
      break;
    case KvType::kF16:
      KvWriteHeads<V, KvType::kF16>(args, stream);
      break;
    case KvType::kInt8:
      KvWriteHeads<V, KvType::kInt8>(args, stream);
      break;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace bullpen::kernels
