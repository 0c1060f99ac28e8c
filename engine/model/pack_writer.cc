#include "engine/model/pack_writer.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/status.h"
#include "base/strings.h"
#include "base/worker_pool.h"
#include "engine/model/row_reader.h"
#include "engine/model/safetensors.h"
#include "kernels/block_quantise.h"
#include "kernels/quant_panels.h"
#include "kernels/types.h"
#define XXH_STATIC_LINKING_ONLY  // The state lives on the stack.
#include "xxhash.h"

namespace bullpen {
namespace {

using Bytes = std::vector<std::byte>;
using Put = std::function<absl::Status(std::span<const std::byte>)>;

// Rows as blocks, until they are read anew.
struct Blocks {
  const kernels::BlockFormat& format;
  std::span<const std::byte> bytes;
};

// Source bytes read at a time of a resident matrix.
constexpr int64_t kChunkBytes = int64_t{8} << 20;

class WeightsWriter {
 public:
  WeightsWriter(const Checkpoint& checkpoint, const PackPlan& plan,
                const WriteWatch& watch)
      : reader_(checkpoint), plan_(plan), watch_(watch) {}

  absl::Status WriteResident(const std::filesystem::path& path);
  absl::Status WriteExperts(const std::filesystem::path& path);
  Manifest manifest;

 private:
  // Rows [first, first + rows) of the stacked parts as `dtype`, row-major, in
  // source_.
  absl::Status ReadRows(std::span<const RowSlice> parts, kernels::DType dtype,
                        int64_t first, int64_t rows);
  // Blocks of some rows of one slice, until the next call.
  absl::StatusOr<std::span<const std::byte>> ReadBlockRows(
      const RowSlice& slice, RowRange rows);
  // The same quantised.
  absl::StatusOr<Blocks> QuantiseRows(const RowSlice& slice, RowRange rows,
                                      const kernels::BlockFormat& format);
  // Blocks that panels of `dtype` can take, as they are stored if they fit.
  absl::StatusOr<Blocks> BlocksOf(const RowSlice& slice, RowRange rows,
                                  kernels::DType dtype);
  PackReport::Line& LineOf(const RowSlice& slice, kernels::DType dtype);
  // Rows of the stacked parts in panels of a block type at `out`.
  absl::Status PackBlocks(std::span<const RowSlice> parts, kernels::DType dtype,
                          int64_t first, int64_t rows, std::byte* out);
  // Some rows of one slice, wherever its elements stand.
  absl::Status ReadSlice(const RowSlice& slice, RowRange rows,
                         kernels::DType dtype, std::span<std::byte> out);
  // In panels of any type.
  absl::Status PackRows(std::span<const RowSlice> parts, kernels::DType dtype,
                        int64_t first, int64_t rows, std::byte* out);
  // One matrix of rows of `parts`, in the tensor's shape and type.
  absl::Status WritePanels(const ResidentPlan& tensor,
                           std::span<const RowSlice> parts, const Put& put);
  absl::Status WriteTensor(const ResidentPlan& tensor,
                           SafetensorsWriter& writer, XXH3_state_t& hash);
  absl::Status PackExpert(const ExpertPlan& expert,
                          const kernels::ExpertShape& shape, std::byte* blob);
  void Advance(int64_t bytes) {
    done_ += bytes;
    if (watch_.progress) watch_.progress(done_, plan_.total_bytes);
  }

  RowReader reader_;
  const PackPlan& plan_;
  const WriteWatch& watch_;
  int64_t done_ = 0;
  std::string kind_;  // of what is being packed, for the report
  // For quantising; made when that begins.
  std::unique_ptr<WorkerPool> workers_;
  Bytes source_;  // rows of the source
  Bytes spread_;  // what a slice that is not contiguous is picked from
  Bytes panels_;
  Bytes quantised_;
};

absl::Status WeightsWriter::ReadRows(std::span<const RowSlice> parts,
                                     kernels::DType dtype, int64_t first,
                                     int64_t rows) {
  const int64_t cols = parts.front().cols;
  source_.resize(static_cast<size_t>(rows * cols * DTypeBytes(dtype)));
  std::byte* out = source_.data();
  int64_t last = first + rows;
  for (const RowSlice& part : parts) {
    const int64_t begin = std::max<int64_t>(first, 0);
    const int64_t end = std::min(last, part.rows);
    // Count from the next part's first row.
    first -= part.rows;
    last -= part.rows;
    if (begin >= end) continue;
    const size_t bytes =
        static_cast<size_t>((end - begin) * cols * DTypeBytes(dtype));
    RETURN_IF_ERROR(ReadSlice(part, {begin, end - begin}, dtype, {out, bytes}));
    out += bytes;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::span<const std::byte>> WeightsWriter::ReadBlockRows(
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

PackReport::Line& WeightsWriter::LineOf(const RowSlice& slice,
                                        kernels::DType dtype) {
  return watch_.report.lines[absl::StrCat(kind_, " ", slice.tensor.info.dtype,
                                          " -> ", Absl(DTypeName(dtype)))];
}

absl::StatusOr<Blocks> WeightsWriter::QuantiseRows(
    const RowSlice& slice, RowRange rows, const kernels::BlockFormat& format) {
  RETURN_IF_ERROR(
      ReadRows({&slice, 1}, kernels::DType::kF32, rows.first, rows.count));
  const float* values = reinterpret_cast<const float*>(source_.data());
  const int64_t cols = slice.cols;
  const int64_t row_bytes = format.RowBytes(cols);
  quantised_.resize(static_cast<size_t>(rows.count * row_bytes));
  if (workers_ == nullptr) {
    workers_ = std::make_unique<WorkerPool>(
        std::max(1, static_cast<int>(std::thread::hardware_concurrency())),
        /*pin=*/false);
  }
  std::vector<PackReport::Line> sums(workers_->threads());
  workers_->ParallelFor(
      rows.count, 8, [&](int64_t begin, int64_t end, int worker) {
        std::vector<float> back(cols);
        for (int64_t r = begin; r < end; ++r) {
          std::byte* blocks = quantised_.data() + r * row_bytes;
          const float* row = values + r * cols;
          kernels::Quantise(format, row, cols, blocks);
          kernels::Dequantise(format, blocks, cols, back.data());
          for (int64_t c = 0; c < cols; ++c) {
            const double error = double{back[c]} - row[c];
            sums[worker].squared_error += error * error;
            sums[worker].squares += double{row[c]} * row[c];
          }
        }
      });
  PackReport::Line& line = LineOf(slice, *kernels::FindDType(format.name));
  for (const PackReport::Line& sum : sums) {
    line.squared_error += sum.squared_error;
    line.squares += sum.squares;
  }
  return Blocks{format, quantised_};
}

absl::StatusOr<Blocks> WeightsWriter::BlocksOf(const RowSlice& slice,
                                               RowRange rows,
                                               kernels::DType dtype) {
  const bool any = dtype == kernels::DType::kQ8_ANY;
  if (slice.dtype == dtype || (any && !kernels::IsPlain(slice.dtype))) {
    ASSIGN_OR_RETURN(const std::span<const std::byte> blocks,
                     ReadBlockRows(slice, rows));
    return Blocks{*FormatOf(slice.tensor), blocks};
  }
  return QuantiseRows(slice, rows, *kernels::FindBlockFormat(DTypeName(dtype)));
}

absl::Status WeightsWriter::PackBlocks(std::span<const RowSlice> parts,
                                       kernels::DType dtype, int64_t first,
                                       int64_t rows, std::byte* out) {
  const int64_t cols = parts.front().cols;
  std::memset(out, 0,
              static_cast<size_t>(kernels::PanelBytes(dtype, rows, cols)));
  const int64_t last = first + rows;
  int64_t part_first = 0;  // of the stacked rows
  for (const RowSlice& part : parts) {
    const int64_t begin = std::max(first, part_first);
    const int64_t end = std::min(last, part_first + part.rows);
    if (begin < end) {
      ASSIGN_OR_RETURN(
          const Blocks blocks,
          BlocksOf(part, {begin - part_first, end - begin}, dtype));
      kernels::PackBlockRows(
          dtype, {blocks.format, blocks.bytes.data(), end - begin, cols},
          begin - first, out);
    }
    part_first += part.rows;
  }
  return absl::OkStatus();
}

absl::Status WeightsWriter::ReadSlice(const RowSlice& slice, RowRange rows,
                                      kernels::DType dtype,
                                      std::span<std::byte> out) {
  const int64_t first = slice.first_row + rows.first * slice.row_step;
  if (!slice.transposed && slice.row_step == 1) {
    return reader_.Read(slice.tensor, {first, rows.count}, dtype, out);
  }
  // All that the rows are spread over, then their elements one by one.
  const RowRange spread =
      slice.transposed ? RowRange{slice.first_col, slice.cols}
                       : RowRange{first, (rows.count - 1) * slice.row_step + 1};
  const int64_t width = slice.tensor.info.shape.back();
  const int64_t element = DTypeBytes(dtype);
  spread_.resize(static_cast<size_t>(spread.count * width * element));
  RETURN_IF_ERROR(reader_.Read(slice.tensor, spread, dtype, spread_));
  const int64_t row_stride = slice.row_step * (slice.transposed ? 1 : width);
  const int64_t col_stride = slice.transposed ? width : 1;
  const int64_t origin = slice.transposed ? first : 0;
  std::byte* to = out.data();
  for (int64_t r = 0; r < rows.count; ++r) {
    for (int64_t c = 0; c < slice.cols; ++c, to += element) {
      const int64_t from = origin + r * row_stride + c * col_stride;
      std::memcpy(to, spread_.data() + from * element,
                  static_cast<size_t>(element));
    }
  }
  return absl::OkStatus();
}

absl::Status WeightsWriter::PackRows(std::span<const RowSlice> parts,
                                     kernels::DType dtype, int64_t first,
                                     int64_t rows, std::byte* out) {
  PackReport::Line& line = LineOf(parts.front(), dtype);
  line.weights += rows * parts.front().cols;
  line.packed_bytes += kernels::PanelBytes(dtype, rows, parts.front().cols);
  if (!kernels::IsPlain(dtype)) {
    return PackBlocks(parts, dtype, first, rows, out);
  }
  RETURN_IF_ERROR(ReadRows(parts, dtype, first, rows));
  const int64_t cols = parts.front().cols;
  kernels::PackPanels(dtype, source_.data(), rows, cols, cols, out);
  return absl::OkStatus();
}

absl::Status WeightsWriter::WritePanels(const ResidentPlan& tensor,
                                        std::span<const RowSlice> parts,
                                        const Put& put) {
  const ResidentShape& shape = tensor.shape;
  const int64_t panel_bytes =
      kernels::PanelBytes(tensor.dtype, kernels::kPanelRows, shape.cols);
  const int64_t step =
      std::max<int64_t>(kChunkBytes / panel_bytes, 1) * kernels::kPanelRows;
  for (int64_t row = 0; row < shape.rows; row += step) {
    const int64_t rows = std::min<int64_t>(step, shape.rows - row);
    panels_.resize(static_cast<size_t>(
        kernels::PanelBytes(tensor.dtype, rows, shape.cols)));
    RETURN_IF_ERROR(PackRows(parts, tensor.dtype, row, rows, panels_.data()));
    RETURN_IF_ERROR(put(panels_));
  }
  return absl::OkStatus();
}

absl::Status WeightsWriter::WriteTensor(const ResidentPlan& tensor,
                                        SafetensorsWriter& writer,
                                        XXH3_state_t& hash) {
  const ResidentShape& shape = tensor.shape;
  kind_ = shape.name.substr(shape.name.rfind('.') + 1);
  const int64_t total = shape.bytes(tensor.dtype);
  int64_t written = 0;
  const auto put = [&](std::span<const std::byte> bytes) {
    XXH3_64bits_update(&hash, bytes.data(), bytes.size());
    written += static_cast<int64_t>(bytes.size());
    Advance(static_cast<int64_t>(bytes.size()));
    return writer.Append(bytes);
  };
  if (shape.heads > 1) {
    for (const RowSlice& head : tensor.parts) {
      RETURN_IF_ERROR(WritePanels(tensor, {&head, 1}, put));
    }
  } else if (shape.panels()) {
    RETURN_IF_ERROR(WritePanels(tensor, tensor.parts, put));
  } else {
    // A vector's parts stand side by side: each is a row of its own width.
    for (const RowSlice& part : tensor.parts) {
      RETURN_IF_ERROR(ReadRows({&part, 1}, kernels::DType::kF32, 0, part.rows));
      RETURN_IF_ERROR(put(source_));
    }
  }
  const Bytes padding(static_cast<size_t>(total - written));
  return put(padding);
}

absl::Status WeightsWriter::WriteResident(const std::filesystem::path& path) {
  std::vector<SafetensorsWriter::Tensor> header;
  for (const ResidentPlan& tensor : plan_.resident) {
    header.push_back(
        {tensor.shape.name, "U8", {tensor.shape.bytes(tensor.dtype)}});
    manifest.resident[tensor.shape.name] = tensor.dtype;
  }
  ASSIGN_OR_RETURN(SafetensorsWriter writer,
                   SafetensorsWriter::Create(path, header, kBlobAlignment));
  XXH3_state_t hash;
  XXH3_64bits_reset(&hash);
  for (const ResidentPlan& tensor : plan_.resident) {
    RETURN_IF_ERROR(WriteTensor(tensor, writer, hash));
  }
  manifest.resident_checksum = XXH3_64bits_digest(&hash);
  return writer.Finish();
}

absl::Status WeightsWriter::PackExpert(const ExpertPlan& expert,
                                       const kernels::ExpertShape& shape,
                                       std::byte* blob) {
  kind_ = "experts";
  RETURN_IF_ERROR(
      PackRows({&expert.gate, 1}, shape.dtype, 0, shape.inner, blob));
  RETURN_IF_ERROR(PackRows({&expert.up, 1}, shape.dtype, 0, shape.inner,
                           blob + shape.gate_bytes()));
  RETURN_IF_ERROR(PackRows({&expert.down, 1}, shape.down_dtype(), 0, shape.dim,
                           blob + shape.down_offset()));
  const int64_t bias_offsets[] = {shape.gate_bias_offset(),
                                  shape.up_bias_offset(),
                                  shape.down_bias_offset()};
  for (size_t i = 0; i < expert.biases.size(); ++i) {
    const RowSlice& bias = expert.biases[i];
    RETURN_IF_ERROR(ReadRows({&bias, 1}, kernels::DType::kF32, 0, bias.rows));
    std::memcpy(blob + bias_offsets[i], source_.data(), source_.size());
  }
  return absl::OkStatus();
}

absl::Status WeightsWriter::WriteExperts(const std::filesystem::path& path) {
  std::vector<SafetensorsWriter::Tensor> header;
  for (size_t l = 0; l < plan_.layers.size(); ++l) {
    for (size_t e = 0; e < plan_.layers[l].experts.size(); ++e) {
      header.push_back({ExpertName(static_cast<int>(l), static_cast<int>(e)),
                        "U8",
                        {plan_.layers[l].blob_bytes}});
    }
  }
  ASSIGN_OR_RETURN(SafetensorsWriter writer,
                   SafetensorsWriter::Create(path, header, kBlobAlignment));
  for (const LayerPlan& layer : plan_.layers) {
    Manifest::Layer& noted = manifest.layers.emplace_back();
    noted.dtype = layer.shape.dtype;
    noted.down = layer.shape.down_dtype();
    // Fresh zeros for each layer: another shape leaves gaps elsewhere.
    Bytes blob(static_cast<size_t>(layer.blob_bytes));
    for (const ExpertPlan& expert : layer.experts) {
      RETURN_IF_ERROR(PackExpert(expert, layer.shape, blob.data()));
      noted.checksums.push_back(XXH3_64bits(blob.data(), blob.size()));
      RETURN_IF_ERROR(writer.Append(blob));
      Advance(layer.blob_bytes);
    }
  }
  return writer.Finish();
}

}  // namespace

absl::StatusOr<Manifest> WriteWeights(const Checkpoint& checkpoint,
                                      const PackPlan& plan,
                                      const std::filesystem::path& dir,
                                      const WriteWatch& watch) {
  WeightsWriter writer(checkpoint, plan, watch);
  RETURN_IF_ERROR(writer.WriteResident(dir / kResidentFile));
  RETURN_IF_ERROR(writer.WriteExperts(dir / kExpertsFile));
  return std::move(writer.manifest);
}

}  // namespace bullpen
