#include "engine/model/row_reader.h"

#include <cstring>

#include "base/check.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/model/scaled_tensor.h"
#include "kernels/block_format.h"

namespace bullpen {
namespace {

// The row of the file that holds the decoder's row.
int64_t StoredRow(const SourceTensor& tensor, int64_t row) {
  const int64_t head = tensor.interleaved_rows;
  if (head == 0) return row;
  const int64_t in_head = row % head;
  const int64_t half = head / 2;
  return row - in_head + in_head % half * 2 + in_head / half;
}

}  // namespace

absl::Status RowReader::ReadStored(const SourceTensor& tensor, RowRange rows,
                                   std::span<std::byte> out) {
  if (tensor.scales.has_value()) return ReadMxfp4(tensor, rows, out);
  // Elements of a vector stand where the rows of its matrix do.
  if (tensor.interleaved_rows != 0 && tensor.info.shape.size() == 1) {
    rows = {0, tensor.info.shape[0]};
  }
  const size_t row_bytes = out.size() / static_cast<size_t>(rows.count);
  const File& file = checkpoint_.open_file(tensor.file);
  const auto at = [&](int64_t row) {
    return tensor.info.offset + row * static_cast<int64_t>(row_bytes);
  };
  if (tensor.interleaved_rows == 0) return file.ReadAt(at(rows.first), out);
  for (int64_t i = 0; i < rows.count; ++i) {
    RETURN_IF_ERROR(file.ReadAt(
        at(StoredRow(tensor, rows.first + i)),
        out.subspan(static_cast<size_t>(i) * row_bytes, row_bytes)));
  }
  return absl::OkStatus();
}

absl::Status RowReader::ReadWithScales(const SourceTensor& tensor,
                                       RowRange rows) {
  const int64_t row_bytes = WeightRowBytes(tensor);
  weights_.resize(static_cast<size_t>(rows.count * row_bytes));
  RETURN_IF_ERROR(
      checkpoint_.open_file(tensor.file)
          .ReadAt(tensor.info.offset + rows.first * row_bytes, weights_));
  const TensorScales& scales = *tensor.scales;
  const int64_t first = ScaleRow(tensor, rows.first);
  const int64_t last = ScaleRow(tensor, rows.first + rows.count - 1);
  const int64_t scale_bytes = ScaleRowBytes(tensor);
  scales_.resize(static_cast<size_t>((last - first + 1) * scale_bytes));
  return checkpoint_.open_file(scales.file)
      .ReadAt(scales.info.offset + first * scale_bytes, scales_);
}

absl::Status RowReader::ReadMxfp4(const SourceTensor& tensor, RowRange rows,
                                  std::span<std::byte> out) {
  RETURN_IF_ERROR(ReadWithScales(tensor, rows));
  JoinMxfp4Blocks(weights_, scales_, out);
  return absl::OkStatus();
}

absl::Status RowReader::ReadFp8(const SourceTensor& tensor, RowRange rows,
                                float* out) {
  RETURN_IF_ERROR(ReadWithScales(tensor, rows));
  DequantiseFp8(tensor,
                {.first = rows.first,
                 .count = rows.count,
                 .weights = weights_,
                 .scales = scales_},
                out);
  return absl::OkStatus();
}

absl::Status RowReader::ReadFp8AsBf16(const SourceTensor& tensor, RowRange rows,
                                      std::span<std::byte> out) {
  values_.resize(out.size() / 2);
  RETURN_IF_ERROR(ReadFp8(tensor, rows, values_.data()));
  for (size_t i = 0; i < values_.size(); ++i) {
    const uint16_t bits = kernels::FromFloat(values_[i], kernels::DType::kBF16);
    if (kernels::ToFloat(bits, kernels::DType::kBF16) != values_[i]) {
      return absl::DataLossError(absl::StrCat(
          checkpoint_.file_of(tensor).string(), ": an FP8 weight is ",
          values_[i],
          "; with the scales that config.json says, powers of two, none is"));
    }
    std::memcpy(out.data() + 2 * i, &bits, sizeof(bits));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::span<const std::byte>> RowReader::ReadBlocks(
    const SourceTensor& tensor, RowRange rows) {
  const int64_t row_bytes =
      FormatOf(tensor)->RowBytes(tensor.info.shape.back());
  stored_.resize(static_cast<size_t>(rows.count * row_bytes));
  RETURN_IF_ERROR(ReadStored(tensor, rows, stored_));
  return std::span<const std::byte>(stored_);
}

absl::Status RowReader::Read(const SourceTensor& tensor, RowRange rows,
                             kernels::DType dtype, std::span<std::byte> out) {
  if (IsFp8(tensor)) {
    if (dtype == kernels::DType::kBF16) return ReadFp8AsBf16(tensor, rows, out);
    CHECK(dtype == kernels::DType::kF32) << "FP8 as " << DTypeName(dtype);
    return ReadFp8(tensor, rows, reinterpret_cast<float*>(out.data()));
  }
  const kernels::BlockFormat* format = FormatOf(tensor);
  const int64_t cols = tensor.info.shape.back();
  CHECK(format != nullptr) << tensor.info.dtype << " cannot be read";
  const int64_t row_bytes = format->RowBytes(cols);
  CHECK(rows.first >= 0 && rows.count > 0 &&
        (rows.first + rows.count) * row_bytes <= tensor.info.bytes &&
        static_cast<int64_t>(out.size()) ==
            rows.count * cols * kernels::DTypeBytes(dtype))
      << "rows " << rows.first << " + " << rows.count << " into " << out.size()
      << " bytes";
  if (format->plain && format->exact == dtype) {
    return ReadStored(tensor, rows, out);
  }
  RETURN_IF_ERROR(ReadBlocks(tensor, rows).status());
  const int64_t count = rows.count * cols;
  if (dtype == kernels::DType::kF32) {
    kernels::Dequantise(*format, stored_.data(), count,
                        reinterpret_cast<float*>(out.data()));
    return absl::OkStatus();
  }
  CHECK(dtype == format->exact) << tensor.info.dtype << " as another half type";
  values_.resize(static_cast<size_t>(count));
  kernels::Dequantise(*format, stored_.data(), count, values_.data());
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t bits = kernels::FromFloat(values_[i], dtype);
    std::memcpy(out.data() + 2 * i, &bits, sizeof(bits));
  }
  return absl::OkStatus();
}

}  // namespace bullpen
