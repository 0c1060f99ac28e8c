#pragma once

#include <cstddef>

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

template <typename V, DType kType>
void KvWriteRow(const KvWriteArgs& args, const KvSequence& sequence,
                int64_t i) {
  const KvLayer& layer = args.layer;
  const int64_t row = sequence.first_row + i;
  const int64_t position = sequence.first_position + i;
  const int64_t lane = position % kKvBlockTokens;
  std::byte* block = KvBlock(layer, sequence, position);
  for (int64_t head = 0; head < layer.kv_heads; ++head) {
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

// Rows of one block share cache lines, so a part is a whole sequence's rows.
template <typename V, DType kType>
void KvWriteRows(const KvWriteArgs& args, Stream& stream) {
  int64_t rows = 0;
  for (int32_t s = 0; s < args.sequence_count; ++s) {
    rows += args.sequences[s].rows;
  }
  if (rows == 0) return;
  const int64_t row_work =
      int64_t{args.layer.kv_heads} * (args.layer.k_dim + args.layer.v_dim) * 4;
  ForParts(stream, args.sequence_count, row_work * rows / args.sequence_count,
           [&](int64_t begin, int64_t end, int) {
             for (int64_t s = begin; s < end; ++s) {
               const KvSequence& sequence = args.sequences[s];
               for (int64_t i = 0; i < sequence.rows; ++i) {
                 KvWriteRow<V, kType>(args, sequence, i);
               }
             }
           });
}

template <typename V>
absl::Status KvWrite(const KvWriteArgs& args, Stream& stream) {
  if (args.layer.dtype == DType::kF32) {
    KvWriteRows<V, DType::kF32>(args, stream);
  } else {
    KvWriteRows<V, DType::kF16>(args, stream);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace bullpen::kernels
