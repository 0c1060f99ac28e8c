#pragma once

#include <bit>
#include <cstddef>

#include "kernels/math_simd.h"
#include "kernels/parallel.h"
#include "kernels/quant_panels.h"
#include "kernels/types.h"

namespace bullpen::kernels {
namespace {

// Row `lane` of a panel: one element of each column, 16 elements apart.
template <typename V, DType kType>
void EmbedRow(const void* panel, int lane, int32_t dim, float scale,
              float* out) {
  if constexpr (kType == DType::kF32) {
    const float* elements = static_cast<const float*>(panel) + lane;
    for (int32_t c = 0; c < dim; ++c) {
      out[c] = scale * elements[int64_t{c} * kPanelRows];
    }
  } else {
    const uint16_t* elements = static_cast<const uint16_t*>(panel) + lane;
    for (int32_t first = 0; first < dim; first += kPanelRows) {
      const int n = std::min(dim - first, kPanelRows);
      uint16_t gathered[kPanelRows] = {};
      for (int i = 0; i < n; ++i) {
        gathered[i] = elements[int64_t{first + i} * kPanelRows];
      }
      StoreLanes<V>(
          out + first, n,
          V::Mul(V::Set(scale), V::template LoadAs<kType>(gathered, 0)));
    }
  }
}

template <typename V, DType kType>
void EmbedRows(const EmbedArgs& args, Stream& stream) {
  const int64_t dim = args.table.cols;
  const std::byte* table = static_cast<const std::byte*>(args.table.data);
  ForParts(stream, args.tokens, 2 * dim, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const int32_t id = args.ids[t];
      EmbedRow<V, kType>(
          table + id / kPanelRows * dim * kPanelRows * DTypeBytes(kType),
          id % kPanelRows, args.table.cols, args.scale, args.out + t * dim);
    }
  });
}

// A few rows of a block type: element by element.
inline void EmbedBlockRows(const EmbedArgs& args, Stream& stream) {
  const int64_t dim = args.table.cols;
  ForParts(stream, args.tokens, 8 * dim, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t c = 0; c < dim; ++c) {
        args.out[t * dim + c] =
            args.scale * PanelElement(args.table.dtype, args.table.data,
                                      args.ids[t], c, dim);
      }
    }
  });
}

template <typename V>
absl::Status Embed(const EmbedArgs& args, Stream& stream) {
  switch (args.table.dtype) {
    case DType::kF32:
      EmbedRows<V, DType::kF32>(args, stream);
      break;
    case DType::kF16:
      EmbedRows<V, DType::kF16>(args, stream);
      break;
    case DType::kBF16:
      EmbedRows<V, DType::kBF16>(args, stream);
      break;
    default:
      EmbedBlockRows(args, stream);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace bullpen::kernels
