#pragma once

#include <bit>
#include <cstddef>
#include <type_traits>

#include "kernels/math_simd.h"
#include "kernels/parallel.h"
#include "kernels/quant_panels.h"
#include "kernels/types.h"

namespace bullpen::kernels {
namespace {

// Row `id` of the table: one element of each column of its band.
template <typename V, DType kType>
void EmbedRow(const PanelMatrix& table, int32_t id, float scale, float* out) {
  using Element = std::conditional_t<kType == DType::kF32, float, uint16_t>;
  const int32_t dim = table.cols;
  const RowBand band(kType, id, table.rows);
  const Element* elements = static_cast<const Element*>(table.data) +
                            band.first_row * dim + id - band.first_row;
  if constexpr (kType == DType::kF32) {
    for (int32_t c = 0; c < dim; ++c) {
      out[c] = scale * elements[c * band.lanes];
    }
  } else {
    for (int32_t first = 0; first < dim; first += kPanelRows) {
      const int n = std::min(dim - first, kPanelRows);
      uint16_t gathered[kPanelRows] = {};
      for (int i = 0; i < n; ++i) {
        gathered[i] = elements[(first + i) * band.lanes];
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
  ForParts(stream, args.tokens, 2 * dim, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      EmbedRow<V, kType>(args.table, args.ids[t], args.scale,
                         args.out + t * dim);
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
            args.scale * PanelElement(args.table, args.ids[t], c);
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
