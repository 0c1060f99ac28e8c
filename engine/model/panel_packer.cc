#include "engine/model/panel_packer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <thread>

#include "base/check.h"
#include "base/status.h"
#include "base/vector_clones.h"
#include "kernels/block_quantise.h"
#include "kernels/quant_panels.h"

namespace bullpen {
namespace {

// Values that a worker takes at a time.
constexpr int64_t kChunkValues = int64_t{1} << 15;

// Some rows of one part, and where in the panels they come.
struct PartRows {
  const RowSlice& slice;
  RowRange rows;
  int64_t at = 0;
};

// Calls fn(PartRows) for each part that has some of the rows.
template <typename Fn>
absl::Status ForParts(const PanelRows& rows, Fn&& fn) {
  const int64_t last = rows.first + rows.count;
  int64_t part_first = 0;
  for (const RowSlice& part : rows.parts) {
    const int64_t begin = std::max(rows.first, part_first);
    const int64_t end = std::min(last, part_first + part.rows);
    if (begin < end) {
      RETURN_IF_ERROR(fn(PartRows{
          part, {begin - part_first, end - begin}, begin - rows.first}));
    }
    part_first += part.rows;
  }
  return absl::OkStatus();
}

// Sums run in lanes, so that compilers make vectors of them.
constexpr size_t kLanes = 16;
using Lanes = std::array<double, kLanes>;

double Total(Lanes lanes) {
  for (size_t step = kLanes / 2; step > 0; step /= 2) {
    for (size_t l = 0; l < step; ++l) lanes[l] += lanes[l + step];
  }
  return lanes[0];
}

struct Squares {
  double weights = 0;
  double errors = 0;
};

// The squares of a row and those of its errors. Blocks are multiples of the
// lanes.
BULLPEN_VECTOR_CLONES
Squares SumSquares(std::span<const float> row, const float* back) {
  Lanes square = {}, error = {};
  for (size_t c = 0; c < row.size(); c += kLanes) {
    for (size_t l = 0; l < kLanes; ++l) {
      const double x = row[c + l], e = double{back[c + l]} - x;
      square[l] += x * x;
      error[l] += e * e;
    }
  }
  return {Total(square), Total(error)};
}

// The same, each times the importance of its column.
BULLPEN_VECTOR_CLONES
Squares SumWeightedSquares(std::span<const float> row, const float* back,
                           const float* importance) {
  Lanes square = {}, error = {};
  for (size_t c = 0; c < row.size(); c += kLanes) {
    for (size_t l = 0; l < kLanes; ++l) {
      const double x = row[c + l], e = double{back[c + l]} - x;
      square[l] += x * x * importance[c + l];
      error[l] += e * e * importance[c + l];
    }
  }
  return {Total(square), Total(error)};
}

// Of one row: quantised, and what that cost.
void QuantiseRow(const kernels::BlockFormat& format, std::span<const float> row,
                 std::span<const float> importance, std::byte* blocks,
                 std::span<float> back, PackedTensor& errors) {
  const int64_t cols = static_cast<int64_t>(row.size());
  kernels::Quantise(format, row.data(), cols, blocks,
                    importance.empty() ? nullptr : importance.data());
  kernels::Dequantise(format, blocks, cols, back.data());
  const Squares plain = SumSquares(row, back.data());
  errors.squares += plain.weights;
  errors.squared_error += plain.errors;
  if (importance.empty()) return;
  const Squares weighted =
      SumWeightedSquares(row, back.data(), importance.data());
  errors.weighted_squares += weighted.weights;
  errors.weighted_error += weighted.errors;
}

// Whether the blocks of a source can be copied.
bool HasBlocksOf(const RowSlice& slice, kernels::DType dtype) {
  return slice.dtype == dtype ||
         (dtype == kernels::DType::kQ8_ANY && !kernels::IsPlain(slice.dtype));
}

// Bytes of so many weights in the source.
int64_t StoredBytes(const RowSlice& slice, int64_t weights) {
  int64_t all = 1;
  for (const int64_t extent : slice.tensor.info.shape) all *= extent;
  return static_cast<int64_t>(static_cast<double>(slice.tensor.info.bytes) *
                              static_cast<double>(weights) /
                              static_cast<double>(all));
}

}  // namespace

PanelPacker::PanelPacker(const Checkpoint& checkpoint)
    : pool_(std::max(1, static_cast<int>(std::thread::hardware_concurrency())),
            /*pin=*/false) {
  for (int i = 0; i < pool_.threads(); ++i) workers_.emplace_back(checkpoint);
}

void PanelPacker::Use(const SourceWindow* window) {
  for (Worker& worker : workers_) worker.reader.Use(window);
}

void PanelPacker::AddRanges(const PanelRows& rows,
                            std::vector<SourceRange>& ranges) {
  const absl::Status added =
      ForParts(rows, [&](const PartRows& part) -> absl::Status {
        SliceReader::AddRanges(part.slice, part.rows, ranges);
        return absl::OkStatus();
      });
  CHECK(added.ok()) << added;
}

absl::Status PanelPacker::PackPlain(const PanelRows& rows, Worker& worker,
                                    std::byte* out) {
  const int64_t cols = rows.parts.front().cols;
  const int64_t row_bytes = cols * kernels::DTypeBytes(rows.dtype);
  std::span<const std::byte> stacked;
  RETURN_IF_ERROR(ForParts(rows, [&](const PartRows& part) -> absl::Status {
    ASSIGN_OR_RETURN(stacked,
                     worker.reader.Read(part.slice, part.rows, rows.dtype));
    if (part.rows.count == rows.count) return absl::OkStatus();
    worker.stacked.resize(static_cast<size_t>(rows.count * row_bytes));
    std::memcpy(worker.stacked.data() + part.at * row_bytes, stacked.data(),
                stacked.size());
    stacked = worker.stacked;
    return absl::OkStatus();
  }));
  kernels::PackPanels(rows.dtype, stacked.data(), rows.count, cols, cols, out);
  return absl::OkStatus();
}

absl::Status PanelPacker::PackBlocks(const PanelRows& rows, Worker& worker,
                                     std::byte* out, Errors& errors) {
  const int64_t cols = rows.parts.front().cols;
  std::memset(
      out, 0,
      static_cast<size_t>(kernels::PanelBytes(rows.dtype, rows.count, cols)));
  return ForParts(rows, [&](const PartRows& part) -> absl::Status {
    if (HasBlocksOf(part.slice, rows.dtype)) {
      ASSIGN_OR_RETURN(const std::span<const std::byte> blocks,
                       worker.reader.ReadBlocks(part.slice, part.rows));
      kernels::PackBlockRows(
          rows.dtype,
          {*FormatOf(part.slice.tensor), blocks.data(), part.rows.count, cols},
          part.at, out);
      return absl::OkStatus();
    }
    const kernels::BlockFormat& format =
        *kernels::FindBlockFormat(DTypeName(rows.dtype));
    ASSIGN_OR_RETURN(const std::span<const float> values,
                     worker.reader.ReadFloats(part.slice, part.rows));
    const int64_t row_bytes = format.RowBytes(cols);
    worker.quantised.resize(static_cast<size_t>(part.rows.count * row_bytes));
    worker.back.resize(static_cast<size_t>(cols));
    for (int64_t r = 0; r < part.rows.count; ++r) {
      QuantiseRow(format,
                  values.subspan(static_cast<size_t>(r * cols),
                                 static_cast<size_t>(cols)),
                  rows.importance, worker.quantised.data() + r * row_bytes,
                  worker.back, errors);
    }
    kernels::PackBlockRows(
        rows.dtype, {format, worker.quantised.data(), part.rows.count, cols},
        part.at, out);
    return absl::OkStatus();
  });
}

absl::Status PanelPacker::Pack(const PanelRows& rows, std::byte* out,
                               PackedTensor& note) {
  const RowSlice& front = rows.parts.front();
  const int64_t bands =
      (rows.count + kernels::kBandRows - 1) / kernels::kBandRows;
  const int64_t band_bytes =
      kernels::PanelBytes(rows.dtype, kernels::kBandRows, front.cols);
  // All rows of a transposed slice lie in the same bytes, which each worker
  // converts.
  const int64_t chunk =
      front.transposed
          ? (bands + pool_.threads() - 1) / pool_.threads()
          : std::max<int64_t>(
                1, kChunkValues / (int64_t{kernels::kBandRows} * front.cols));
  const int64_t chunks = (bands + chunk - 1) / chunk;
  std::vector<Errors> errors(static_cast<size_t>(chunks));
  std::vector<absl::Status> statuses(static_cast<size_t>(chunks));
  const auto pack = [&](int64_t i, Worker& worker) {
    PanelRows some = rows;
    const int64_t skipped = i * chunk * kernels::kBandRows;
    some.first += skipped;
    some.count = std::min(chunk * kernels::kBandRows, rows.count - skipped);
    std::byte* to = out + i * chunk * band_bytes;
    statuses[i] = kernels::IsPlain(rows.dtype)
                      ? PackPlain(some, worker, to)
                      : PackBlocks(some, worker, to, errors[i]);
  };
  pool_.ParallelFor(chunks, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) pack(i, workers_[worker]);
  });
  for (const absl::Status& status : statuses) RETURN_IF_ERROR(status);
  // In the chunks' order, so that sums are the same in every run.
  for (const Errors& sums : errors) note.Add(sums);
  note.weights += rows.count * front.cols;
  note.source_bytes += StoredBytes(front, rows.count * front.cols);
  note.packed_bytes += kernels::PanelBytes(rows.dtype, rows.count, front.cols);
  return absl::OkStatus();
}

}  // namespace bullpen
