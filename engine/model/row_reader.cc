#include "engine/model/row_reader.h"

#include <cstring>

#include "base/check.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/model/scaled_tensor.h"
#include "kernels/block_format.h"

namespace bullpen {
namespace {

using ByteSpan = std::span<const std::byte>;

// The row of the file that holds the decoder's row.
int64_t StoredRow(const SourceTensor& tensor, int64_t row) {
  const int64_t head = tensor.interleaved_rows;
  const int64_t in_head = row % head;
  const int64_t half = head / 2;
  return row - in_head + in_head % half * 2 + in_head / half;
}

// Rows as the file has them; elements of an interleaved vector stand where the
// rows of its matrix do.
struct StoredRows {
  RowRange rows;
  int64_t row_bytes = 0;

  SourceRange In(int32_t file, const TensorInfo& info) const {
    return {.file = file,
            .offset = info.offset + rows.first * row_bytes,
            .bytes = rows.count * row_bytes};
  }
};

StoredRows WeightRows(const SourceTensor& tensor, RowRange rows) {
  return {rows, WeightRowBytes(tensor)};
}

StoredRows ScaleRows(const SourceTensor& tensor, RowRange rows) {
  const int64_t first = ScaleRow(tensor, rows.first);
  const int64_t last = ScaleRow(tensor, rows.first + rows.count - 1);
  return {{first, last - first + 1}, ScaleRowBytes(tensor)};
}

StoredRows PlainRows(const SourceTensor& tensor, RowRange rows) {
  const TensorInfo& info = tensor.info;
  const int64_t row_bytes = FormatOf(tensor)->RowBytes(info.shape.back());
  const int64_t head = tensor.interleaved_rows;
  if (head == 0) return {rows, row_bytes};
  if (info.shape.size() == 1) {
    return {{0, info.shape[0]}, row_bytes / info.shape[0]};
  }
  const int64_t first = rows.first / head * head;
  const int64_t last = (rows.first + rows.count + head - 1) / head * head;
  return {{first, last - first}, row_bytes};
}

}  // namespace

void RowReader::AddRanges(const SourceTensor& tensor, RowRange rows,
                          std::vector<SourceRange>& ranges) {
  if (tensor.scales.has_value()) {
    ranges.push_back(WeightRows(tensor, rows).In(tensor.file, tensor.info));
    ranges.push_back(
        ScaleRows(tensor, rows).In(tensor.scales->file, tensor.scales->info));
  } else {
    ranges.push_back(PlainRows(tensor, rows).In(tensor.file, tensor.info));
  }
}

absl::StatusOr<ByteSpan> RowReader::Take(const SourceRange& range,
                                         Bytes& buffer) {
  const std::byte* const held =
      window_ != nullptr ? window_->Find(range) : nullptr;
  if (held != nullptr) return ByteSpan(held, static_cast<size_t>(range.bytes));
  buffer.resize(static_cast<size_t>(range.bytes));
  RETURN_IF_ERROR(
      checkpoint_.open_file(range.file).ReadAt(range.offset, buffer));
  return ByteSpan(buffer);
}

absl::StatusOr<ByteSpan> RowReader::ReadInterleaved(const SourceTensor& tensor,
                                                    RowRange rows) {
  const StoredRows stored = PlainRows(tensor, rows);
  ASSIGN_OR_RETURN(const ByteSpan all,
                   Take(stored.In(tensor.file, tensor.info), stored_));
  if (tensor.info.shape.size() == 1) rows = stored.rows;
  const size_t row_bytes = static_cast<size_t>(stored.row_bytes);
  joined_.resize(static_cast<size_t>(rows.count) * row_bytes);
  for (int64_t i = 0; i < rows.count; ++i) {
    const int64_t from = StoredRow(tensor, rows.first + i) - stored.rows.first;
    std::memcpy(joined_.data() + static_cast<size_t>(i) * row_bytes,
                all.data() + static_cast<size_t>(from) * row_bytes, row_bytes);
  }
  return ByteSpan(joined_);
}

absl::StatusOr<RowReader::Scaled> RowReader::TakeScaled(
    const SourceTensor& tensor, RowRange rows) {
  Scaled stored;
  ASSIGN_OR_RETURN(
      stored.weights,
      Take(WeightRows(tensor, rows).In(tensor.file, tensor.info), stored_));
  ASSIGN_OR_RETURN(
      stored.scales,
      Take(ScaleRows(tensor, rows).In(tensor.scales->file, tensor.scales->info),
           scales_));
  return stored;
}

absl::StatusOr<ByteSpan> RowReader::ReadMxfp4(const SourceTensor& tensor,
                                              RowRange rows) {
  ASSIGN_OR_RETURN(const Scaled stored, TakeScaled(tensor, rows));
  joined_.resize(static_cast<size_t>(
      rows.count * FormatOf(tensor)->RowBytes(tensor.info.shape.back())));
  JoinMxfp4Blocks(stored.weights, stored.scales, joined_);
  return ByteSpan(joined_);
}

absl::Status RowReader::ReadFp8(const SourceTensor& tensor, RowRange rows,
                                float* out) {
  ASSIGN_OR_RETURN(const Scaled stored, TakeScaled(tensor, rows));
  DequantiseFp8(tensor,
                {.first = rows.first,
                 .count = rows.count,
                 .weights = stored.weights,
                 .scales = stored.scales},
                out);
  return absl::OkStatus();
}

absl::Status RowReader::ReadFp8AsBf16(const SourceTensor& tensor,
                                      RowRange rows) {
  values_.resize(out_.size() / 2);
  RETURN_IF_ERROR(ReadFp8(tensor, rows, values_.data()));
  for (size_t i = 0; i < values_.size(); ++i) {
    const uint16_t bits = kernels::FromFloat(values_[i], kernels::DType::kBF16);
    if (kernels::ToFloat(bits, kernels::DType::kBF16) != values_[i]) {
      return absl::DataLossError(absl::StrCat(
          checkpoint_.file_of(tensor).string(), ": an FP8 weight is ",
          values_[i],
          "; with the scales that config.json says, powers of two, none is"));
    }
    std::memcpy(out_.data() + 2 * i, &bits, sizeof(bits));
  }
  return absl::OkStatus();
}

absl::StatusOr<ByteSpan> RowReader::ReadBlocks(const SourceTensor& tensor,
                                               RowRange rows) {
  if (tensor.scales.has_value()) return ReadMxfp4(tensor, rows);
  if (tensor.interleaved_rows != 0) return ReadInterleaved(tensor, rows);
  return Take(PlainRows(tensor, rows).In(tensor.file, tensor.info), stored_);
}

absl::StatusOr<ByteSpan> RowReader::Read(const SourceTensor& tensor,
                                         RowRange rows, kernels::DType dtype) {
  const int64_t cols = tensor.info.shape.back();
  const int64_t count = rows.count * cols;
  const int64_t element = kernels::DTypeBytes(dtype);
  if (IsFp8(tensor)) {
    out_.resize(static_cast<size_t>(count * element));
    if (dtype == kernels::DType::kBF16) {
      RETURN_IF_ERROR(ReadFp8AsBf16(tensor, rows));
      return ByteSpan(out_);
    }
    CHECK(dtype == kernels::DType::kF32) << "FP8 as " << DTypeName(dtype);
    RETURN_IF_ERROR(
        ReadFp8(tensor, rows, reinterpret_cast<float*>(out_.data())));
    return ByteSpan(out_);
  }
  const kernels::BlockFormat* format = FormatOf(tensor);
  CHECK(format != nullptr) << tensor.info.dtype << " cannot be read";
  CHECK(rows.first >= 0 && rows.count > 0 &&
        (rows.first + rows.count) * format->RowBytes(cols) <= tensor.info.bytes)
      << "rows " << rows.first << " + " << rows.count;
  ASSIGN_OR_RETURN(const ByteSpan stored, ReadBlocks(tensor, rows));
  const bool aligned =
      reinterpret_cast<uintptr_t>(stored.data()) % element == 0;
  const bool as_stored = format->plain && format->exact == dtype;
  if (as_stored && aligned) return stored;
  out_.resize(static_cast<size_t>(count * element));
  if (as_stored) {
    std::memcpy(out_.data(), stored.data(), stored.size());
  } else if (dtype == kernels::DType::kF32) {
    kernels::Dequantise(*format, stored.data(), count,
                        reinterpret_cast<float*>(out_.data()));
  } else {
    CHECK(dtype == format->exact)
        << tensor.info.dtype << " as another half type";
    values_.resize(static_cast<size_t>(count));
    kernels::Dequantise(*format, stored.data(), count, values_.data());
    for (int64_t i = 0; i < count; ++i) {
      const uint16_t bits = kernels::FromFloat(values_[i], dtype);
      std::memcpy(out_.data() + 2 * i, &bits, sizeof(bits));
    }
  }
  return ByteSpan(out_);
}

}  // namespace bullpen
