#include "engine/model/shaped_model.h"

#include <algorithm>
#include <map>
#include <random>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/status.h"
#include "base/xxh3.h"
#include "engine/model/config.h"
#include "engine/model/noise_panels.h"
#include "engine/model/pack_layout.h"
#include "engine/model/safetensors.h"
#include "kernels/block_quantise.h"
#include "kernels/quant_panels.h"
#include "nlohmann/json.hpp"

namespace bullpen {
namespace {

using Bytes = std::vector<std::byte>;
using Json = nlohmann::ordered_json;

// Sizes as the published config.json files give them.
const std::map<std::string, Json>& Shapes() {
  static const std::map<std::string, Json> shapes = {
      {"qwen3-30b-a3b",
       {{"model_type", "qwen3_moe"},
        {"hidden_size", 2048},
        {"intermediate_size", 6144},
        {"moe_intermediate_size", 768},
        {"num_hidden_layers", 48},
        {"num_attention_heads", 32},
        {"num_key_value_heads", 4},
        {"head_dim", 128},
        {"num_experts", 128},
        {"num_experts_per_tok", 8},
        {"norm_topk_prob", true},
        {"decoder_sparse_step", 1},
        {"rms_norm_eps", 1e-6},
        {"rope_theta", 1000000.0}}},
      {"olmoe",
       {{"model_type", "olmoe"},
        {"hidden_size", 2048},
        {"intermediate_size", 1024},
        {"num_hidden_layers", 16},
        {"num_attention_heads", 16},
        {"num_key_value_heads", 16},
        {"num_experts", 64},
        {"num_experts_per_tok", 8},
        {"norm_topk_prob", false},
        {"rms_norm_eps", 1e-5},
        {"rope_theta", 10000.0}}}};
  return shapes;
}

absl::StatusOr<kernels::DType> WritableType(const char* of,
                                            const std::string& name) {
  const kernels::BlockFormat* const format = kernels::FindBlockFormat(name);
  if (format != nullptr && kernels::CanQuantise(*format)) {
    return kernels::PanelTypeOf(*format);
  }
  return absl::InvalidArgumentError(
      absl::StrCat(of, " type '", name, "' cannot be written"));
}

absl::StatusOr<Json> ConfigOf(const ShapedModelOptions& options) {
  const auto found = Shapes().find(options.shape);
  if (found == Shapes().end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("shape '", options.shape, "' is not one of ",
                     absl::StrJoin(ShapedModels(), ", ")));
  }
  Json config = found->second;
  if (options.layers > 0) config["num_hidden_layers"] = options.layers;
  if (options.top_k > 0) config["num_experts_per_tok"] = options.top_k;
  config["vocab_size"] = options.vocab;
  config["hidden_act"] = "silu";
  config["max_position_embeddings"] = 4096;
  config["tie_word_embeddings"] = false;
  return config;
}

class ShapedWriter {
 public:
  ShapedWriter(const ModelConfig& config, kernels::DType dtype,
               kernels::DType resident, const ShapedModelOptions& options)
      : config_(config),
        dtype_(dtype),
        resident_(resident),
        options_(options) {}

  absl::Status WriteResident(const std::filesystem::path& path) {
    std::vector<SafetensorsWriter::Tensor> header;
    const std::vector<ResidentShape> shapes = ResidentShapes(config_);
    for (const ResidentShape& shape : shapes) {
      const kernels::DType type = ResidentType(shape);
      header.push_back({shape.name, "U8", {shape.bytes(type)}});
      manifest_.resident[shape.name] =
          shape.panels() ? type : kernels::DType::kF32;
    }
    ASSIGN_OR_RETURN(SafetensorsWriter writer,
                     SafetensorsWriter::Create(path, header, kBlobAlignment));
    XXH3_state_t hash;
    XXH3_64bits_reset(&hash);
    for (const ResidentShape& shape : shapes) {
      const kernels::DType type = ResidentType(shape);
      Bytes bytes;
      if (shape.panels()) {
        for (int32_t head = 0; head < shape.heads; ++head) {
          ASSIGN_OR_RETURN(const Bytes matrix,
                           NoisePanels(random_, type, shape.rows, shape.cols));
          bytes.insert(bytes.end(), matrix.begin(), matrix.end());
        }
      } else {
        const std::vector<float> ones(static_cast<size_t>(shape.cols), 1.0f);
        const auto view = std::as_bytes(std::span(ones));
        bytes.assign(view.begin(), view.end());
      }
      bytes.resize(static_cast<size_t>(shape.bytes(type)));
      XXH3_64bits_update(&hash, bytes.data(), bytes.size());
      RETURN_IF_ERROR(writer.Append(bytes));
    }
    manifest_.resident_checksum = XXH3_64bits_digest(&hash);
    return writer.Finish();
  }

  absl::Status WriteExperts(const std::filesystem::path& path) {
    const int layers = static_cast<int>(config_.layers.size());
    std::vector<SafetensorsWriter::Tensor> header;
    int64_t total = 0;
    for (int l = 0; l < layers; ++l) {
      const int64_t bytes =
          BlobBytes(ExpertShapeOf(config_, l, dtype_, dtype_));
      for (int e = 0; e < config_.experts_in(l); ++e) {
        header.push_back({ExpertName(l, e), "U8", {bytes}});
        total += bytes;
      }
    }
    ASSIGN_OR_RETURN(SafetensorsWriter writer,
                     SafetensorsWriter::Create(path, header, kBlobAlignment));
    int64_t done = 0;
    for (int l = 0; l < layers; ++l) {
      ASSIGN_OR_RETURN(const Bytes blob, Blob(l));
      Manifest::Layer& noted = manifest_.layers.emplace_back();
      noted.dtype = noted.down = dtype_;
      noted.checksums.assign(static_cast<size_t>(config_.experts_in(l)),
                             XXH3_64bits(blob.data(), blob.size()));
      for (int e = 0; e < config_.experts_in(l); ++e) {
        RETURN_IF_ERROR(writer.Append(blob));
        done += static_cast<int64_t>(blob.size());
        if (options_.progress) options_.progress(done, total);
      }
    }
    return writer.Finish();
  }

  const Manifest& manifest() const { return manifest_; }

 private:
  kernels::DType ResidentType(const ResidentShape& shape) const {
    return shape.name.ends_with("router") ? kernels::DType::kBF16 : resident_;
  }

  absl::StatusOr<Bytes> Blob(int layer) {
    const kernels::ExpertShape shape =
        ExpertShapeOf(config_, layer, dtype_, dtype_);
    Bytes blob(static_cast<size_t>(BlobBytes(shape)));
    const std::pair<int64_t, std::pair<int32_t, int32_t>> parts[] = {
        {0, {shape.inner, shape.dim}},
        {shape.gate_bytes(), {shape.inner, shape.dim}},
        {shape.down_offset(), {shape.dim, shape.inner}}};
    for (const auto& [offset, size] : parts) {
      ASSIGN_OR_RETURN(const Bytes panels,
                       NoisePanels(random_, dtype_, size.first, size.second));
      std::ranges::copy(panels, blob.begin() + offset);
    }
    return blob;
  }

  const ModelConfig& config_;
  kernels::DType dtype_;     // of experts
  kernels::DType resident_;  // of other matrices
  const ShapedModelOptions& options_;
  std::mt19937 random_{1};
  Manifest manifest_;
};

}  // namespace

std::vector<std::string> ShapedModels() {
  std::vector<std::string> names;
  for (const auto& [name, config] : Shapes()) names.push_back(name);
  return names;
}

absl::Status WriteShapedModel(const ShapedModelOptions& options,
                              const std::filesystem::path& target) {
  ASSIGN_OR_RETURN(const Json json, ConfigOf(options));
  ASSIGN_OR_RETURN(const ModelConfig config,
                   ParseModelConfig(nlohmann::json::parse(json.dump())));
  ASSIGN_OR_RETURN(const kernels::DType experts,
                   WritableType("expert", options.expert_type));
  ASSIGN_OR_RETURN(const kernels::DType resident,
                   WritableType("resident", options.resident_type));
  std::error_code error;
  if (std::filesystem::exists(target, error)) {
    return absl::AlreadyExistsError(
        absl::StrCat(target.string(), " exists; name a new directory"));
  }
  std::filesystem::create_directories(target, error);
  if (error) {
    return absl::PermissionDeniedError(
        absl::StrCat("cannot make '", target.string(), "': ", error.message()));
  }
  ShapedWriter writer(config, experts, resident, options);
  RETURN_IF_ERROR(WriteNewFile(target / "config.json", json.dump(1)));
  RETURN_IF_ERROR(writer.WriteResident(target / kResidentFile));
  RETURN_IF_ERROR(writer.WriteExperts(target / kExpertsFile));
  Manifest manifest = writer.manifest();
  manifest.source_key = absl::StrCat("shaped-", options.shape);
  return WriteNewFile(target / kManifestFile, manifest.ToJson());
}

}  // namespace bullpen
