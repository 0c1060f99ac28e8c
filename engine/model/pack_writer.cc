#include "engine/model/pack_writer.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "base/status.h"
#include "base/strings.h"
#include "base/xxh3.h"
#include "engine/model/panel_packer.h"
#include "engine/model/safetensors.h"
#include "engine/model/slice_reader.h"
#include "engine/model/write_behind.h"
#include "kernels/types.h"

namespace bullpen {
namespace {

using Bytes = std::vector<std::byte>;
// Takes bytes away and leaves others in their place.
using Put = std::function<absl::Status(Bytes&)>;

// Packed bytes that a resident matrix is written by.
constexpr int64_t kChunkBytes = int64_t{8} << 20;

class WeightsWriter {
 public:
  WeightsWriter(const Checkpoint& checkpoint, const PackPlan& plan,
                const WriteWatch& watch)
      : packer_(checkpoint), vectors_(checkpoint), plan_(plan), watch_(watch) {}

  absl::Status WriteResident(const std::filesystem::path& path);
  absl::Status WriteExperts(const std::filesystem::path& path);
  Manifest manifest;

 private:
  // What is known of a matrix' columns.
  std::vector<float> ImportanceOf(const std::string& matrix) const {
    return watch_.importance == nullptr ? std::vector<float>()
                                        : watch_.importance->Of(matrix);
  }
  // One matrix of rows of `parts`, in the tensor's shape and type.
  absl::Status WritePanels(const ResidentPlan& tensor,
                           std::span<const RowSlice> parts, const Put& put,
                           PackedTensor& note);
  absl::Status WriteTensor(const ResidentPlan& tensor, WriteBehind& file,
                           XXH3_state_t& hash);
  // gate_up_ and down_ of layer l, with no weights yet.
  void StartNotes(int l);
  absl::Status PackExpert(const LayerPlan& layer, int l, int e,
                          std::byte* blob);
  void Advance(int64_t bytes) {
    done_ += bytes;
    if (watch_.progress) watch_.progress(done_, plan_.total_bytes);
  }

  PanelPacker packer_;
  SliceReader vectors_;
  const PackPlan& plan_;
  const WriteWatch& watch_;
  int64_t done_ = 0;
  PackedTensor gate_up_;  // of the layer at hand
  PackedTensor down_;
  Bytes panels_;
};

// "BF16+Q8_0" of parts in these types.
std::string SourceTypes(std::span<const RowSlice> parts) {
  std::set<std::string> types;
  for (const RowSlice& part : parts) types.insert(part.tensor.info.dtype);
  return absl::StrJoin(types, "+");
}

absl::Status WeightsWriter::WritePanels(const ResidentPlan& tensor,
                                        std::span<const RowSlice> parts,
                                        const Put& put, PackedTensor& note) {
  const ResidentShape& shape = tensor.shape;
  const std::vector<float> importance = ImportanceOf(shape.name);
  const int64_t panel_bytes =
      kernels::PanelBytes(tensor.dtype, kernels::kPanelRows, shape.cols);
  const int64_t step =
      std::max<int64_t>(kChunkBytes / panel_bytes, 1) * kernels::kPanelRows;
  for (int64_t row = 0; row < shape.rows; row += step) {
    const int64_t rows = std::min<int64_t>(step, shape.rows - row);
    panels_.resize(static_cast<size_t>(
        kernels::PanelBytes(tensor.dtype, rows, shape.cols)));
    RETURN_IF_ERROR(packer_.Pack({.parts = parts,
                                  .dtype = tensor.dtype,
                                  .first = row,
                                  .count = rows,
                                  .importance = importance},
                                 panels_.data(), note));
    RETURN_IF_ERROR(put(panels_));
  }
  return absl::OkStatus();
}

absl::Status WeightsWriter::WriteTensor(const ResidentPlan& tensor,
                                        WriteBehind& file, XXH3_state_t& hash) {
  const ResidentShape& shape = tensor.shape;
  PackedTensor note = {.name = shape.name,
                       .from = SourceTypes(tensor.parts),
                       .to = std::string(DTypeName(tensor.dtype)),
                       .reason = tensor.reason};
  const int64_t total = shape.bytes(tensor.dtype);
  int64_t written = 0;
  const auto put = [&](Bytes& bytes) {
    XXH3_64bits_update(&hash, bytes.data(), bytes.size());
    written += static_cast<int64_t>(bytes.size());
    Advance(static_cast<int64_t>(bytes.size()));
    return file.Append(bytes);
  };
  if (shape.heads > 1) {
    for (const RowSlice& head : tensor.parts) {
      RETURN_IF_ERROR(WritePanels(tensor, {&head, 1}, put, note));
    }
  } else if (shape.panels()) {
    RETURN_IF_ERROR(WritePanels(tensor, tensor.parts, put, note));
  } else {
    // A vector's parts stand side by side: each is a row of its own width.
    for (const RowSlice& part : tensor.parts) {
      ASSIGN_OR_RETURN(const std::span<const float> values,
                       vectors_.ReadFloats(part, {0, part.rows}));
      const std::span<const std::byte> bytes = std::as_bytes(values);
      panels_.assign(bytes.begin(), bytes.end());
      RETURN_IF_ERROR(put(panels_));
    }
  }
  if (shape.panels()) watch_.report.tensors.push_back(std::move(note));
  panels_.assign(static_cast<size_t>(total - written), std::byte{0});
  return put(panels_);
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
  WriteBehind file(std::move(writer));
  XXH3_state_t hash;
  XXH3_64bits_reset(&hash);
  for (const ResidentPlan& tensor : plan_.resident) {
    RETURN_IF_ERROR(WriteTensor(tensor, file, hash));
  }
  manifest.resident_checksum = XXH3_64bits_digest(&hash);
  return file.Finish();
}

void WeightsWriter::StartNotes(int l) {
  const LayerPlan& layer = plan_.layers[l];
  std::vector<RowSlice> gate_up, down;
  for (const ExpertPlan& expert : layer.experts) {
    gate_up.insert(gate_up.end(), {expert.gate, expert.up});
    down.push_back(expert.down);
  }
  const std::string prefix = absl::StrCat("layers.", l, ".experts.");
  gate_up_ = {.name = prefix + "gate_up",
              .from = SourceTypes(gate_up),
              .to = std::string(DTypeName(layer.shape.dtype)),
              .reason = layer.gate_reason};
  down_ = {.name = prefix + "down",
           .from = SourceTypes(down),
           .to = std::string(DTypeName(layer.shape.down_dtype())),
           .reason = layer.down_reason};
}

absl::Status WeightsWriter::PackExpert(const LayerPlan& layer, int l, int e,
                                       std::byte* blob) {
  const ExpertPlan& expert = layer.experts[e];
  const kernels::ExpertShape& shape = layer.shape;
  const std::vector<float> gate_importance =
      ImportanceOf(Importance::ExpertMatrix(l, e, "experts.gate"));
  PanelRows rows = {.parts = {&expert.gate, 1},
                    .dtype = shape.dtype,
                    .count = shape.inner,
                    .importance = gate_importance};
  RETURN_IF_ERROR(packer_.Pack(rows, blob, gate_up_));
  rows.parts = {&expert.up, 1};
  RETURN_IF_ERROR(packer_.Pack(rows, blob + shape.gate_bytes(), gate_up_));
  const std::vector<float> down_importance =
      ImportanceOf(Importance::ExpertMatrix(l, e, "experts.down"));
  RETURN_IF_ERROR(packer_.Pack({.parts = {&expert.down, 1},
                                .dtype = shape.down_dtype(),
                                .count = shape.dim,
                                .importance = down_importance},
                               blob + shape.down_offset(), down_));
  const int64_t bias_offsets[] = {shape.gate_bias_offset(),
                                  shape.up_bias_offset(),
                                  shape.down_bias_offset()};
  for (size_t i = 0; i < expert.biases.size(); ++i) {
    const RowSlice& bias = expert.biases[i];
    ASSIGN_OR_RETURN(const std::span<const float> values,
                     vectors_.ReadFloats(bias, {0, bias.rows}));
    std::memcpy(blob + bias_offsets[i], values.data(), values.size_bytes());
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
  WriteBehind file(std::move(writer));
  Bytes blob;
  for (size_t l = 0; l < plan_.layers.size(); ++l) {
    const LayerPlan& layer = plan_.layers[l];
    Manifest::Layer& noted = manifest.layers.emplace_back();
    noted.dtype = layer.shape.dtype;
    noted.down = layer.shape.down_dtype();
    StartNotes(static_cast<int>(l));
    for (size_t e = 0; e < layer.experts.size(); ++e) {
      // Zeros for the gaps between matrices.
      blob.assign(static_cast<size_t>(layer.blob_bytes), std::byte{0});
      RETURN_IF_ERROR(PackExpert(layer, static_cast<int>(l),
                                 static_cast<int>(e), blob.data()));
      noted.checksums.push_back(XXH3_64bits(blob.data(), blob.size()));
      RETURN_IF_ERROR(file.Append(blob));
      Advance(layer.blob_bytes);
    }
    watch_.report.tensors.push_back(gate_up_);
    watch_.report.tensors.push_back(down_);
  }
  return file.Finish();
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
