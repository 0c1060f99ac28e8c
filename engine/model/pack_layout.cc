#include "engine/model/pack_layout.h"

#include <charconv>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/model/config_fields.h"
#include "engine/model/safetensors.h"

namespace bullpen {
namespace {

using nlohmann::json;

constexpr char kFormatName[] = "bullpen-packed";

int64_t RoundUp(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

ResidentShape Matrix(ResidentRole role, int layer, std::string name,
                     int32_t rows, int32_t cols) {
  return {role, layer, std::move(name), rows, cols, /*panels=*/true};
}

ResidentShape Vector(ResidentRole role, int layer, std::string name,
                     int32_t cols) {
  return {role, layer, std::move(name), /*rows=*/1, cols, /*panels=*/false};
}

void AddRouterAndShared(const ModelConfig& config, int layer,
                        std::vector<ResidentShape>& shapes) {
  const std::string at = absl::StrCat("layers.", layer, ".");
  using Role = ResidentRole;
  shapes.push_back(
      Matrix(Role::kRouter, layer, at + "router", config.experts, config.dim));
  if (config.choice_bias) {
    shapes.push_back(
        Vector(Role::kChoiceBias, layer, at + "choice_bias", config.experts));
  }
  if (config.shared_expert == SharedExpert::kNone) return;
  if (config.shared_expert == SharedExpert::kSigmoidGated) {
    shapes.push_back(Matrix(Role::kSharedRouter, layer, at + "shared_router", 1,
                            config.dim));
  }
  // These three are adjacent and of one type: kernels::ExpertShape's blob.
  shapes.push_back(Matrix(Role::kSharedGate, layer, at + "shared_gate",
                          config.shared_inner, config.dim));
  shapes.push_back(Matrix(Role::kSharedUp, layer, at + "shared_up",
                          config.shared_inner, config.dim));
  shapes.push_back(Matrix(Role::kSharedDown, layer, at + "shared_down",
                          config.dim, config.shared_inner));
}

void AddLayer(const ModelConfig& config, int layer,
              std::vector<ResidentShape>& shapes) {
  const std::string at = absl::StrCat("layers.", layer, ".");
  const int32_t q_rows = config.heads * config.head_dim;
  const int32_t qkv_rows = q_rows + 2 * config.kv_heads * config.head_dim;
  using Role = ResidentRole;
  shapes.push_back(
      Vector(Role::kAttnNorm, layer, at + "attn_norm", config.dim));
  shapes.push_back(Matrix(Role::kQkv, layer, at + "qkv", qkv_rows, config.dim));
  if (config.qkv_bias) {
    shapes.push_back(Vector(Role::kQkvBias, layer, at + "qkv_bias", qkv_rows));
  }
  if (config.qk_norm != QkNorm::kNone) {
    const bool whole = config.qk_norm == QkNorm::kWhole;
    const int32_t k_rows = config.kv_heads * config.head_dim;
    shapes.push_back(Vector(Role::kQNorm, layer, at + "q_norm",
                            whole ? q_rows : config.head_dim));
    shapes.push_back(Vector(Role::kKNorm, layer, at + "k_norm",
                            whole ? k_rows : config.head_dim));
  }
  shapes.push_back(Matrix(Role::kO, layer, at + "o", config.dim, q_rows));
  if (config.o_bias) {
    shapes.push_back(Vector(Role::kOBias, layer, at + "o_bias", config.dim));
  }
  shapes.push_back(Vector(Role::kFfnNorm, layer, at + "ffn_norm", config.dim));
  if (config.layers[layer].moe) AddRouterAndShared(config, layer, shapes);
}

// Checksums are hex strings: a JSON number need not hold 64 bits elsewhere.
std::string Hex(uint64_t value) { return absl::StrFormat("%016x", value); }

uint64_t ParseHex(ConfigFields& fields, const char* key, const json& value) {
  uint64_t number = 0;
  const std::string text =
      value.is_string() ? value.get<std::string>() : std::string();
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number, 16);
  if (text.size() != 16 || error != std::errc() || rest != end) {
    fields.Refuse(key, "checksums are 16 hex digits");
  }
  return number;
}

kernels::DType ParseDType(ConfigFields& fields, const char* key) {
  const std::optional<kernels::DType> dtype =
      kernels::FindDType(fields.String(key));
  if (!dtype.has_value()) {
    fields.Refuse(key, "the types that this program's kernels have are");
  }
  return dtype.value_or(kernels::DType::kF32);
}

void ReadLayers(ConfigFields& fields, Manifest& manifest) {
  if (!fields.object().contains("layers") ||
      !fields.object()["layers"].is_array()) {
    fields.Refuse("layers", "a list of layers is");
    return;
  }
  for (const json& item : fields.object()["layers"]) {
    ConfigFields layer(
        item, absl::StrCat(kManifestFile, ": layer ", manifest.layers.size()),
        absl::StatusCode::kDataLoss);
    Manifest::Layer& read = manifest.layers.emplace_back();
    read.dtype = ParseDType(layer, "dtype");
    read.down =
        layer.Has("down_dtype") ? ParseDType(layer, "down_dtype") : read.dtype;
    if (layer.Has("checksums") && item["checksums"].is_array()) {
      for (const json& value : item["checksums"]) {
        read.checksums.push_back(ParseHex(layer, "checksums", value));
      }
    } else {
      layer.Refuse("checksums", "a list is");
    }
    fields.Fail(layer.status());
  }
}

}  // namespace

int64_t ResidentShape::bytes(kernels::DType dtype) const {
  const int64_t bytes = panels ? kernels::PanelBytes(dtype, rows, cols)
                               : int64_t{4} * rows * cols;
  return RoundUp(bytes, kResidentAlignment);
}

std::vector<ResidentShape> ResidentShapes(const ModelConfig& config) {
  std::vector<ResidentShape> shapes;
  using Role = ResidentRole;
  shapes.push_back(Matrix(Role::kEmbed, 0, "embed", config.vocab, config.dim));
  for (size_t layer = 0; layer < config.layers.size(); ++layer) {
    AddLayer(config, static_cast<int>(layer), shapes);
  }
  shapes.push_back(Vector(Role::kFinalNorm, 0, "final_norm", config.dim));
  if (!config.tied_head) {
    shapes.push_back(Matrix(Role::kHead, 0, "head", config.vocab, config.dim));
  }
  return shapes;
}

kernels::ExpertShape ExpertShapeOf(const ModelConfig& config, int layer,
                                   kernels::DType dtype, kernels::DType down) {
  kernels::ExpertShape shape = {.dtype = dtype,
                                .dim = config.dim,
                                .inner = config.layers[layer].ffn_inner};
  if (down != dtype) shape.other_down = down;
  return shape;
}

int64_t BlobBytes(const kernels::ExpertShape& shape) {
  return RoundUp(shape.bytes(), kBlobAlignment);
}

std::string ExpertName(int layer, int expert) {
  return absl::StrCat("layers.", layer, ".experts.", expert);
}

std::string Manifest::ToJson() const {
  nlohmann::ordered_json root = {
      {"format", kFormatName},
      {"version", kPackFormatVersion},
      {"layout", std::string(kernels::kPanelLayoutName)},
      {"source_key", source_key},
      {"resident_checksum", Hex(resident_checksum)},
      {"resident", nlohmann::ordered_json::object()},
      {"layers", nlohmann::ordered_json::array()}};
  for (const auto& [name, dtype] : resident) {
    root["resident"][name] = {{"dtype", std::string(DTypeName(dtype))}};
  }
  for (const Layer& layer : layers) {
    nlohmann::ordered_json checksums = nlohmann::ordered_json::array();
    for (const uint64_t checksum : layer.checksums) {
      checksums.push_back(Hex(checksum));
    }
    nlohmann::ordered_json noted = {
        {"dtype", std::string(DTypeName(layer.dtype))}};
    if (layer.down != layer.dtype) {
      noted["down_dtype"] = std::string(DTypeName(layer.down));
    }
    noted["checksums"] = std::move(checksums);
    root["layers"].push_back(std::move(noted));
  }
  return root.dump(1) + "\n";
}

absl::StatusOr<Manifest> Manifest::Read(const std::filesystem::path& dir) {
  const std::filesystem::path path = dir / kManifestFile;
  constexpr absl::StatusCode kBad = absl::StatusCode::kDataLoss;
  ASSIGN_OR_RETURN(const json root, ReadJsonFile(path, kBad));
  ConfigFields fields(root, path.string(), kBad);
  const std::string format = fields.String("format");
  const int32_t version = fields.Int("version", {.least = 1});
  const std::string layout = fields.String("layout");
  RETURN_IF_ERROR(fields.status());
  if (format != kFormatName || version != kPackFormatVersion ||
      layout != kernels::kPanelLayoutName) {
    return absl::FailedPreconditionError(absl::StrCat(
        path.string(), " is of format ", Printable(format), " version ",
        version, " with layout ", Printable(layout), "; this program reads ",
        kFormatName, " version ", kPackFormatVersion, " with layout ",
        Absl(kernels::kPanelLayoutName), ": pack the model again"));
  }
  Manifest manifest;
  manifest.source_key = fields.String("source_key");
  manifest.resident_checksum = ParseHex(
      fields, "resident_checksum", root.value("resident_checksum", json()));
  ConfigFields resident = fields.Object("resident");
  for (const auto& [name, unused] : resident.object().items()) {
    ConfigFields tensor = resident.Object(name.c_str());
    manifest.resident[name] = ParseDType(tensor, "dtype");
    fields.Fail(tensor.status());
  }
  fields.Fail(resident.status());
  ReadLayers(fields, manifest);
  RETURN_IF_ERROR(fields.status());
  return manifest;
}

}  // namespace bullpen
