#include "engine/model/slice_reader.h"

#include <cstring>

#include "base/check.h"
#include "base/status.h"

namespace bullpen {
namespace {

// The tensor's rows that the slice's rows are spread over.
RowRange SpreadOf(const RowSlice& slice, RowRange rows) {
  if (slice.transposed) return {slice.first_col, slice.cols};
  return {slice.first_row + rows.first * slice.row_step,
          (rows.count - 1) * slice.row_step + 1};
}

// Picks elements of type T out of the values that the rows are spread over.
template <typename T>
void PickElements(const RowSlice& slice, RowRange rows, const std::byte* spread,
                  std::byte* out) {
  const int64_t width = slice.tensor.info.shape.back();
  const int64_t row_stride = slice.row_step * (slice.transposed ? 1 : width);
  const int64_t col_stride = slice.transposed ? width : 1;
  const int64_t origin =
      slice.transposed ? slice.first_row + rows.first * slice.row_step : 0;
  for (int64_t r = 0; r < rows.count; ++r) {
    for (int64_t c = 0; c < slice.cols; ++c, out += sizeof(T)) {
      const int64_t from = origin + r * row_stride + c * col_stride;
      std::memcpy(out, spread + from * static_cast<int64_t>(sizeof(T)),
                  sizeof(T));
    }
  }
}

}  // namespace

void SliceReader::AddRanges(const RowSlice& slice, RowRange rows,
                            std::vector<SourceRange>& ranges) {
  RowReader::AddRanges(slice.tensor, SpreadOf(slice, rows), ranges);
}

absl::StatusOr<std::span<const std::byte>> SliceReader::Read(
    const RowSlice& slice, RowRange rows, kernels::DType dtype) {
  ASSIGN_OR_RETURN(const std::span<const std::byte> spread,
                   reader_.Read(slice.tensor, SpreadOf(slice, rows), dtype));
  if (!slice.transposed && slice.row_step == 1) return spread;
  picked_.resize(static_cast<size_t>(rows.count * slice.cols *
                                     kernels::DTypeBytes(dtype)));
  if (dtype == kernels::DType::kF32) {
    PickElements<float>(slice, rows, spread.data(), picked_.data());
  } else {
    PickElements<uint16_t>(slice, rows, spread.data(), picked_.data());
  }
  return std::span<const std::byte>(picked_);
}

absl::StatusOr<std::span<const float>> SliceReader::ReadFloats(
    const RowSlice& slice, RowRange rows) {
  ASSIGN_OR_RETURN(const std::span<const std::byte> bytes,
                   Read(slice, rows, kernels::DType::kF32));
  return std::span<const float>(reinterpret_cast<const float*>(bytes.data()),
                                bytes.size() / sizeof(float));
}

absl::StatusOr<std::span<const std::byte>> SliceReader::ReadBlocks(
    const RowSlice& slice, RowRange rows) {
  CHECK(!slice.transposed) << "blocks run along rows";
  const RowRange spread = SpreadOf(slice, rows);
  ASSIGN_OR_RETURN(const std::span<const std::byte> blocks,
                   reader_.ReadBlocks(slice.tensor, spread));
  if (slice.row_step == 1) return blocks;
  const size_t row_bytes = blocks.size() / static_cast<size_t>(spread.count);
  picked_.resize(static_cast<size_t>(rows.count) * row_bytes);
  for (int64_t r = 0; r < rows.count; ++r) {
    const size_t from = static_cast<size_t>(r * slice.row_step) * row_bytes;
    std::memcpy(picked_.data() + static_cast<size_t>(r) * row_bytes,
                blocks.data() + from, row_bytes);
  }
  return std::span<const std::byte>(picked_);
}

}  // namespace bullpen
