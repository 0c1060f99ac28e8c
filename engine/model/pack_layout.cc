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

using Names = TensorNames;

// The resident tensors of a model, one after another.
class ResidentLister {
 public:
  explicit ResidentLister(const ModelConfig& config) : config_(config) {}

  std::vector<ResidentShape> List() &&;

 private:
  ResidentShape& Add(ResidentKind kind, const char* name, int32_t cols,
                     std::vector<ResidentPart> parts);
  void Matrix(const char* name, int32_t cols, std::vector<ResidentPart> parts) {
    Add(ResidentKind::kMatrix, name, cols, std::move(parts));
  }
  void Vector(const char* name, std::vector<ResidentPart> parts) {
    Add(ResidentKind::kVector, name, 0, std::move(parts));
  }
  void Norm(const char* name, const char* bias_name,
            std::string_view Names::* weight, std::string_view Names::* bias);
  void GroupedAttention();
  void LatentAttention();
  void Output();
  void RouterAndShared();
  void Shared();

  const ModelConfig& config_;
  int layer_ = -1;  // outside of the layers
  std::vector<ResidentShape> shapes_;
};

ResidentShape& ResidentLister::Add(ResidentKind kind, const char* name,
                                   int32_t cols,
                                   std::vector<ResidentPart> parts) {
  int32_t total = 0;
  for (const ResidentPart& part : parts) total += part.rows;
  const bool vector = kind == ResidentKind::kVector;
  shapes_.push_back(
      {.kind = kind,
       .layer = std::max(layer_, 0),
       .name = layer_ < 0 ? name : absl::StrCat("layers.", layer_, ".", name),
       .rows = vector ? 1 : total,
       .cols = vector ? total : cols,
       .parts = std::move(parts)});
  return shapes_.back();
}

void ResidentLister::Norm(const char* name, const char* bias_name,
                          std::string_view Names::* weight,
                          std::string_view Names::* bias) {
  Vector(name, {{weight, config_.dim}});
  if (config_.norm_kind == NormKind::kLayer) {
    Vector(bias_name, {{bias, config_.dim}});
  }
}

void ResidentLister::GroupedAttention() {
  const int32_t q_rows = config_.heads * config_.head_dim;
  const int32_t k_rows = config_.kv_heads * config_.head_dim;
  Matrix("qkv", config_.dim,
         {{&Names::q, q_rows}, {&Names::k, k_rows}, {&Names::v, k_rows}});
  if (config_.qkv_bias) {
    Vector("qkv_bias", {{&Names::q_bias, q_rows},
                        {&Names::k_bias, k_rows},
                        {&Names::v_bias, k_rows}});
  }
  if (config_.qk_norm != QkNorm::kNone) {
    const bool whole = config_.qk_norm == QkNorm::kWhole;
    Vector("q_norm", {{&Names::q_norm, whole ? q_rows : config_.head_dim}});
    Vector("k_norm", {{&Names::k_norm, whole ? k_rows : config_.head_dim}});
  }
  if (config_.sinks) Vector("sinks", {{&Names::sinks, config_.heads}});
}

// Queries without a latent of their own come straight from the hidden state.
void ResidentLister::LatentAttention() {
  const struct LatentAttention& latent = config_.latent;
  const int32_t query = config_.heads * (latent.nope_dim + latent.rope_dim);
  const int32_t kv_rows = latent.kv_rank + latent.rope_dim;
  std::vector<ResidentPart> down, bias;
  if (latent.q_rank > 0) {
    down = {{&Names::q_a, latent.q_rank}};
    bias = {{&Names::q_a_bias, latent.q_rank}};
  }
  down.push_back({&Names::kv_a, kv_rows});
  bias.push_back({&Names::kv_a_bias, kv_rows});
  Matrix("down", config_.dim, std::move(down));
  if (config_.qkv_bias) Vector("down_bias", std::move(bias));
  if (latent.q_rank > 0) {
    Vector("q_latent_norm", {{&Names::q_a_norm, latent.q_rank}});
    Matrix("q_up", latent.q_rank, {{&Names::q_b, query}});
  } else {
    Matrix("q_up", config_.dim, {{&Names::q, query}});
  }
  Vector("kv_latent_norm", {{&Names::kv_a_norm, latent.kv_rank}});
  Add(ResidentKind::kKeyUp, "k_up", latent.nope_dim,
      {{&Names::kv_b, latent.kv_rank}})
      .heads = config_.heads;
  Add(ResidentKind::kValueUp, "v_up", latent.kv_rank,
      {{&Names::kv_b, latent.value_dim}})
      .heads = config_.heads;
}

void ResidentLister::Output() {
  Matrix("o", config_.attended_dim(), {{&Names::o, config_.dim}});
  if (config_.o_bias) Vector("o_bias", {{&Names::o_bias, config_.dim}});
}

void ResidentLister::RouterAndShared() {
  Matrix("router", config_.dim, {{&Names::router, config_.experts}});
  if (config_.router_bias) {
    Vector("router_bias", {{&Names::router_bias, config_.experts}});
  }
  if (config_.choice_bias) {
    Vector("choice_bias", {{&Names::choice_bias, config_.experts}});
  }
  if (config_.shared_expert == SharedExpert::kSigmoidGated) {
    Matrix("shared_router", config_.dim, {{&Names::shared_router, 1}});
  }
  if (config_.shared_expert != SharedExpert::kNone) Shared();
}

// Adjacent and of one type: kernels::ExpertShape's blob.
void ResidentLister::Shared() {
  const size_t first = shapes_.size();
  const int32_t inner = config_.shared_inner;
  Matrix("shared_gate", config_.dim, {{&Names::shared_gate, inner}});
  Matrix("shared_up", config_.dim, {{&Names::shared_up, inner}});
  Matrix("shared_down", inner, {{&Names::shared_down, config_.dim}});
  if (config_.mlp_bias) {
    Vector("shared_gate_bias", {{&Names::shared_gate_bias, inner}});
    Vector("shared_up_bias", {{&Names::shared_up_bias, inner}});
    Vector("shared_down_bias", {{&Names::shared_down_bias, config_.dim}});
  }
  for (size_t i = first; i < shapes_.size(); ++i) {
    shapes_[i].shared_expert = true;
  }
}

std::vector<ResidentShape> ResidentLister::List() && {
  Matrix("embed", config_.dim, {{&Names::embed, config_.vocab}});
  const int layers = static_cast<int>(config_.layers.size());
  for (layer_ = 0; layer_ < layers; ++layer_) {
    Norm("attn_norm", "attn_norm_bias", &Names::attn_norm,
         &Names::attn_norm_bias);
    if (config_.is_latent()) {
      LatentAttention();
    } else {
      GroupedAttention();
    }
    Output();
    Norm("ffn_norm", "ffn_norm_bias", &Names::ffn_norm, &Names::ffn_norm_bias);
    if (config_.layers[layer_].moe) RouterAndShared();
  }
  layer_ = -1;
  Norm("final_norm", "final_norm_bias", &Names::final_norm,
       &Names::final_norm_bias);
  if (!config_.tied_head) {
    Matrix("head", config_.dim, {{&Names::head, config_.vocab}});
  }
  if (config_.head_bias)
    Vector("head_bias", {{&Names::head_bias, config_.vocab}});
  return std::move(shapes_);
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
  const int64_t bytes = panels()
                            ? heads * kernels::PanelBytes(dtype, rows, cols)
                            : int64_t{4} * rows * cols;
  return RoundUp(bytes, kResidentAlignment);
}

std::vector<ResidentShape> ResidentShapes(const ModelConfig& config) {
  return ResidentLister(config).List();
}

kernels::ExpertShape ExpertShapeOf(const ModelConfig& config, int layer,
                                   kernels::DType dtype, kernels::DType down) {
  kernels::ExpertShape shape = {.dtype = dtype,
                                .dim = config.dim,
                                .inner = config.layers[layer].ffn_inner};
  shape.bias = config.layers[layer].moe ? config.expert_bias : config.mlp_bias;
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
