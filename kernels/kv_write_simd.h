#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/kv_layout.h"
#include "kernels/math_simd.h"
#include "kernels/parallel.h"

namespace bullpen::kernels {
namespace {

template <DType kType>
using KvElement = std::conditional_t<kType == DType::kF32, float, uint16_t>;

// x[0, count) as elements `step` apart.
template <typename V, DType kType>
void StoreElements(const float* x, int32_t count, int64_t step, void* base) {
  KvElement<kType>* out = static_cast<KvElement<kType>*>(base);
  for (int32_t i = 0; i < count; i += 16) {
    const int n = std::min(count - i, 16);
    const typename V::F a = LoadLanes<V>(x + i, n);
    KvElement<kType> elements[16];
    if constexpr (kType == DType::kF32) {
      V::Store(elements, a);
    } else {
      V::StoreF16(elements, a);
    }
    for (int lane = 0; lane < n; ++lane) {
      out[(i + lane) * step] = elements[lane];
    }
  }
}

// One head of all rows of a sequence.
template <typename V, DType kType>
void KvWriteHead(const KvWriteArgs& args, const KvSequence& sequence,
                 int64_t head) {
  const KvLayer& layer = args.layer;
  for (int64_t i = 0; i < sequence.rows; ++i) {
    const int64_t row = sequence.first_row + i;
    const int64_t position = sequence.first_position + i;
    const int64_t lane = position % kKvBlockTokens;
    std::byte* block = KvBlock(layer, sequence, position);
    StoreElements<V, kType>(
        args.k + row * args.k_stride + head * layer.k_dim, layer.k_dim,
        kKvBlockTokens,
        block + KvKeyOffset(layer, head) + lane * DTypeBytes(kType));
    StoreElements<V, kType>(args.v + row * args.v_stride + head * layer.v_dim,
                            layer.v_dim, 1,
                            block + KvValueOffset(layer, head) +
                                lane * layer.v_dim * DTypeBytes(kType));
  }
}

// Split by heads: the rows of one head share cache lines.
template <typename V, DType kType>
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
  if (args.layer.dtype == DType::kF32) {
    KvWriteHeads<V, DType::kF32>(args, stream);
  } else {
    KvWriteHeads<V, DType::kF16>(args, stream);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace bullpen::kernels
