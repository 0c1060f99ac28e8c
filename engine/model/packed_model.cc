#include "engine/model/packed_model.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/direct_file.h"
#include "base/read_queue.h"
#include "base/status.h"
#include "base/strings.h"
#include "base/xxh3.h"
#include "engine/model/config_fields.h"
#include "engine/model/pack_layout.h"
#include "engine/model/safetensors.h"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;

// Read at a time: enough for the disk to reach its rate, and what is read last,
// with nothing left to hash meanwhile, is soon hashed.
constexpr int64_t kChunkBytes = int64_t{4} << 20;
// At a time.
constexpr int kReads = 3;

struct Blob {
  std::string name;
  int64_t bytes = 0;
  int64_t base = 0;       // of the offset, in the file
  int64_t alignment = 1;  // of the offset
};

// The offset from `base` of the U8 tensor of that name and size.
absl::StatusOr<int64_t> FindBlob(const SafetensorsFile& file,
                                 const Blob& blob) {
  const std::string where =
      absl::StrCat(file.path().string(), ": tensor '", blob.name, "' ");
  const auto found = file.tensors().find(blob.name);
  if (found == file.tensors().end()) {
    return absl::DataLossError(absl::StrCat(where, "is missing"));
  }
  const TensorInfo& info = found->second;
  if (info.dtype != "U8" || info.bytes != blob.bytes) {
    return absl::DataLossError(absl::StrCat(
        where, "is ", info.dtype, " ", info.ShapeText(),
        ", but config.json and manifest.json say U8 [", blob.bytes, "]"));
  }
  const int64_t offset = info.offset - blob.base;
  if (offset % blob.alignment != 0) {
    return absl::DataLossError(absl::StrCat(where, "stands at byte ", offset,
                                            ", which is not a multiple of ",
                                            blob.alignment));
  }
  return offset;
}

absl::Status CheckCount(const SafetensorsFile& file, size_t expected) {
  if (file.tensors().size() == expected) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(file.path().string(), " has ", file.tensors().size(),
                   " tensors, but config.json says ", expected));
}

// Rows of a block type are whole blocks.
absl::Status CheckColumns(const SafetensorsFile& file, const std::string& name,
                          kernels::DType dtype, int32_t cols) {
  const int32_t block = kernels::FormatOf(dtype).block_cols;
  if (cols % block == 0) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat((file.path().parent_path() / kManifestFile).string(), ": ",
                   name, " has ", cols, " columns, but ",
                   Absl(DTypeName(dtype)), " has blocks of ", block));
}

absl::StatusOr<std::map<std::string, ResidentTensor>> ReadResident(
    const SafetensorsFile& file, const ModelConfig& config,
    const Manifest& manifest) {
  std::map<std::string, ResidentTensor> tensors;
  for (const ResidentShape& shape : ResidentShapes(config)) {
    const auto noted = manifest.resident.find(shape.name);
    if (noted == manifest.resident.end()) {
      return absl::DataLossError(
          absl::StrCat((file.path().parent_path() / kManifestFile).string(),
                       ": resident has no '", shape.name, "'"));
    }
    if (shape.panels()) {
      RETURN_IF_ERROR(
          CheckColumns(file, shape.name, noted->second, shape.cols));
    }
    const int64_t bytes = shape.bytes(noted->second);
    ASSIGN_OR_RETURN(const int64_t offset,
                     FindBlob(file, {.name = shape.name,
                                     .bytes = bytes,
                                     .base = file.data_offset(),
                                     .alignment = kResidentAlignment}));
    tensors[shape.name] = {
        .dtype = shape.panels() ? noted->second : kernels::DType::kF32,
        .rows = shape.rows,
        .cols = shape.cols,
        .panels = shape.panels(),
        .offset = offset,
        .bytes = bytes};
  }
  RETURN_IF_ERROR(CheckCount(file, tensors.size()));
  return tensors;
}

absl::StatusOr<ExpertCatalog::Layer> ReadLayer(const SafetensorsFile& file,
                                               const Manifest::Layer& noted,
                                               int layer, int experts,
                                               int64_t blob_bytes) {
  if (static_cast<int>(noted.checksums.size()) != experts) {
    return absl::DataLossError(
        absl::StrCat((file.path().parent_path() / kManifestFile).string(),
                     ": layer ", layer, " has ", noted.checksums.size(),
                     " checksums, but config.json says ", experts, " experts"));
  }
  ExpertCatalog::Layer read{.blob_bytes = blob_bytes, .experts = {}};
  for (int e = 0; e < experts; ++e) {
    ASSIGN_OR_RETURN(const int64_t offset,
                     FindBlob(file, {.name = ExpertName(layer, e),
                                     .bytes = blob_bytes,
                                     .alignment = kBlobAlignment}));
    read.experts.push_back(
        {.file = 0, .offset = offset, .checksum = noted.checksums[e]});
  }
  return read;
}

absl::StatusOr<nlohmann::json> ReadOptionalJson(const fs::path& path) {
  absl::StatusOr<nlohmann::json> json =
      ReadJsonFile(path, absl::StatusCode::kInvalidArgument);
  if (absl::IsNotFound(json.status())) return nlohmann::json();
  return json;
}

}  // namespace

kernels::PanelMatrix ResidentWeights::matrix(const std::string& name) const {
  const auto found = tensors_.find(name);
  CHECK(found != tensors_.end() && found->second.panels)
      << "no resident matrix " << name;
  const ResidentTensor& tensor = found->second;
  return {.data = buffer_.data() + tensor.offset,
          .dtype = tensor.dtype,
          .rows = tensor.rows,
          .cols = tensor.cols};
}

const float* ResidentWeights::vector(const std::string& name) const {
  const auto found = tensors_.find(name);
  CHECK(found != tensors_.end() && !found->second.panels)
      << "no resident vector " << name;
  return reinterpret_cast<const float*>(buffer_.data() + found->second.offset);
}

bool ResidentWeights::contains(const std::string& name) const {
  return tensors_.contains(name);
}

absl::StatusOr<PackedModel> PackedModel::Open(const fs::path& dir) {
  PackedModel model;
  model.dir_ = fs::absolute(dir);
  ASSIGN_OR_RETURN(const Manifest manifest, Manifest::Read(model.dir_));
  ASSIGN_OR_RETURN(const nlohmann::json config,
                   ReadJsonFile(model.dir_ / "config.json",
                                absl::StatusCode::kInvalidArgument));
  ASSIGN_OR_RETURN(const nlohmann::json generation,
                   ReadOptionalJson(model.dir_ / "generation_config.json"));
  ASSIGN_OR_RETURN(model.config_, ParseModelConfig(config));
  ASSIGN_OR_RETURN(model.generation_,
                   ParseGenerationDefaults(config, generation));

  ASSIGN_OR_RETURN(const SafetensorsFile resident,
                   SafetensorsFile::Open(model.dir_ / kResidentFile));
  ASSIGN_OR_RETURN(model.tensors_,
                   ReadResident(resident, model.config_, manifest));
  model.resident_data_offset_ = resident.data_offset();
  if (model.resident_data_offset_ % kDirectAlignment != 0) {
    return absl::DataLossError(
        absl::StrCat(resident.path().string(), ": its data begins at byte ",
                     resident.data_offset(), ", which is not a multiple of ",
                     kDirectAlignment));
  }
  model.resident_bytes_ = resident.size() - resident.data_offset();
  model.resident_checksum_ = manifest.resident_checksum;

  const fs::path experts_path = model.dir_ / kExpertsFile;
  ASSIGN_OR_RETURN(const SafetensorsFile experts,
                   SafetensorsFile::Open(experts_path));
  if (manifest.layers.size() != model.config_.layers.size()) {
    return absl::DataLossError(absl::StrCat(
        (model.dir_ / kManifestFile).string(), " has ", manifest.layers.size(),
        " layers, but config.json says ", model.config_.layers.size()));
  }
  model.catalog_.files = {experts_path.string()};
  size_t count = 0;
  for (size_t l = 0; l < manifest.layers.size(); ++l) {
    const int layer = static_cast<int>(l);
    model.shapes_.push_back(ExpertShapeOf(model.config_, layer,
                                          manifest.layers[l].dtype,
                                          manifest.layers[l].down));
    const kernels::ExpertShape& shape = model.shapes_.back();
    RETURN_IF_ERROR(
        CheckColumns(experts, ExpertName(layer, 0), shape.dtype, shape.dim));
    RETURN_IF_ERROR(CheckColumns(experts, ExpertName(layer, 0),
                                 shape.down_dtype(), shape.inner));
    ASSIGN_OR_RETURN(ExpertCatalog::Layer read,
                     ReadLayer(experts, manifest.layers[l], layer,
                               model.config_.experts_in(layer),
                               BlobBytes(model.shapes_.back())));
    count += read.experts.size();
    model.catalog_.layers.push_back(std::move(read));
  }
  RETURN_IF_ERROR(CheckCount(experts, count));
  return model;
}

bool PackedModel::has_block_types() const {
  for (const auto& [name, tensor] : tensors_) {
    if (!kernels::IsPlain(tensor.dtype)) return true;
  }
  return std::ranges::any_of(shapes_, [](const kernels::ExpertShape& shape) {
    return !kernels::IsPlain(shape.dtype) ||
           !kernels::IsPlain(shape.down_dtype());
  });
}

absl::StatusOr<ResidentWeights> PackedModel::LoadResident(
    std::span<const int32_t> memory_nodes) const {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  const fs::path path = dir_ / kResidentFile;
  ASSIGN_OR_RETURN(const DirectFile file, DirectFile::Open(path));
  ResidentWeights weights;
  weights.tensors_ = tensors_;
  ASSIGN_OR_RETURN(
      weights.buffer_,
      HugeBuffer::Allocate(resident_bytes_, HugeBuffer::Touch::kLater,
                           memory_nodes));
  XXH3_state_t hash;
  XXH3_64bits_reset(&hash);
  ReadQueue queue(kReads);
  const auto chunk_at = [&](int64_t offset) {
    return std::min(resident_bytes_ - offset, kChunkBytes);
  };
  const std::span<std::byte> pages = weights.buffer_.pages();
  for (int64_t at = 0; at < resident_bytes_; at += kChunkBytes) {
    queue.Submit(
        {.file = &file,
         .offset = resident_data_offset_ + at,
         .out = pages.subspan(static_cast<size_t>(at),
                              std::min(pages.size() - static_cast<size_t>(at),
                                       static_cast<size_t>(kChunkBytes))),
         .needed = chunk_at(at)});
  }
  for (int64_t at = 0; at < resident_bytes_; at += kChunkBytes) {
    RETURN_IF_ERROR(queue.Wait());
    XXH3_64bits_update(&hash, pages.data() + at,
                       static_cast<size_t>(chunk_at(at)));
  }
  const double seconds =
      std::chrono::duration<double>(Clock::now() - start).count();
  const uint64_t checksum = XXH3_64bits_digest(&hash);
  if (checksum != resident_checksum_) {
    return absl::DataLossError(absl::StrCat(
        path.string(), ": its data has the checksum ",
        absl::Hex(checksum, absl::kZeroPad16), ", but manifest.json says ",
        absl::Hex(resident_checksum_, absl::kZeroPad16)));
  }
  spdlog::info("loaded {} of resident weights in {:.2f} s ({}/s)",
               FormatBytes(resident_bytes_), seconds,
               FormatBytes(static_cast<int64_t>(
                   static_cast<double>(resident_bytes_) / seconds)));
  return weights;
}

}  // namespace bullpen
