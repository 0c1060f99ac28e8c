#include "engine/model/slice_reader.h"

#include <cstring>

#include "base/check.h"
#include "base/status.h"

namespace bullpen {

absl::StatusOr<std::span<const std::byte>> SliceReader::Read(
    const RowSlice& slice, RowRange rows, kernels::DType dtype) {
  rows_.resize(static_cast<size_t>(rows.count * slice.cols *
                                   kernels::DTypeBytes(dtype)));
  if (slice.transposed || slice.row_step != 1) {
    RETURN_IF_ERROR(Pick(slice, rows, dtype));
  } else {
    RETURN_IF_ERROR(reader_.Read(slice.tensor,
                                 {slice.first_row + rows.first, rows.count},
                                 dtype, rows_));
  }
  return std::span<const std::byte>(rows_);
}

absl::StatusOr<std::span<const float>> SliceReader::ReadFloats(
    const RowSlice& slice, RowRange rows) {
  ASSIGN_OR_RETURN(const std::span<const std::byte> bytes,
                   Read(slice, rows, kernels::DType::kF32));
  return std::span<const float>(reinterpret_cast<const float*>(bytes.data()),
                                bytes.size() / sizeof(float));
}

absl::Status SliceReader::Pick(const RowSlice& slice, RowRange rows,
                               kernels::DType dtype) {
  const int64_t first = slice.first_row + rows.first * slice.row_step;
  const RowRange spread =
      slice.transposed ? RowRange{slice.first_col, slice.cols}
                       : RowRange{first, (rows.count - 1) * slice.row_step + 1};
  const int64_t width = slice.tensor.info.shape.back();
  const int64_t element = kernels::DTypeBytes(dtype);
  spread_.resize(static_cast<size_t>(spread.count * width * element));
  RETURN_IF_ERROR(reader_.Read(slice.tensor, spread, dtype, spread_));
  const int64_t row_stride = slice.row_step * (slice.transposed ? 1 : width);
  const int64_t col_stride = slice.transposed ? width : 1;
  const int64_t origin = slice.transposed ? first : 0;
  std::byte* to = rows_.data();
  for (int64_t r = 0; r < rows.count; ++r) {
    for (int64_t c = 0; c < slice.cols; ++c, to += element) {
      const int64_t from = origin + r * row_stride + c * col_stride;
      std::memcpy(to, spread_.data() + from * element,
                  static_cast<size_t>(element));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::span<const std::byte>> SliceReader::ReadBlocks(
    const RowSlice& slice, RowRange rows) {
  CHECK(!slice.transposed) << "blocks run along rows";
  const RowRange spread{slice.first_row + rows.first * slice.row_step,
                        (rows.count - 1) * slice.row_step + 1};
  ASSIGN_OR_RETURN(const std::span<const std::byte> blocks,
                   reader_.ReadBlocks(slice.tensor, spread));
  if (slice.row_step == 1) return blocks;
  const size_t row_bytes = blocks.size() / static_cast<size_t>(spread.count);
  spread_.resize(static_cast<size_t>(rows.count) * row_bytes);
  for (int64_t r = 0; r < rows.count; ++r) {
    const size_t from = static_cast<size_t>(r * slice.row_step) * row_bytes;
    std::memcpy(spread_.data() + static_cast<size_t>(r) * row_bytes,
                blocks.data() + from, row_bytes);
  }
  return std::span<const std::byte>(spread_);
}

}  // namespace bullpen
