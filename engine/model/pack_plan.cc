#include "engine/model/pack_plan.h"

#include <charconv>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_join.h"
#include "absl/strings/substitute.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/model/config_fields.h"

namespace bullpen {
namespace {

std::string NameOf(std::string_view pattern, int layer, int expert = 0) {
  return absl::Substitute(Absl(pattern), layer, expert);
}

bool IsSharedExpert(ResidentRole role) {
  return role == ResidentRole::kSharedGate || role == ResidentRole::kSharedUp ||
         role == ResidentRole::kSharedDown;
}

// The type that holds both exactly.
kernels::DType Wider(kernels::DType a, kernels::DType b) {
  if (a == b) return a;
  return kernels::IsPlain(a) || kernels::IsPlain(b) ? kernels::DType::kF32
                                                    : kernels::DType::kQ8_ANY;
}

class Planner {
 public:
  Planner(const Checkpoint& checkpoint, const ModelConfig& config,
          const Family& family)
      : checkpoint_(checkpoint),
        config_(config),
        names_(checkpoint.names(family)) {}

  absl::StatusOr<PackPlan> Plan();

 private:
  using Shape = std::vector<int64_t>;

  bool Has(const std::string& name) const {
    return checkpoint_.tensors().contains(name);
  }
  // The tensor as one matrix, or one vector as a row.
  absl::StatusOr<RowSlice> Take(const std::string& name, const Shape& shape);
  absl::StatusOr<std::vector<RowSlice>> Parts(const ResidentShape& shape);
  absl::StatusOr<std::vector<RowSlice>> TakeQkv(int layer);
  absl::StatusOr<std::vector<RowSlice>> TakeQkvBias(int layer);
  absl::StatusOr<LayerPlan> PlanLayer(int layer);
  absl::StatusOr<std::vector<ExpertPlan>> TakeFused(int layer);
  absl::StatusOr<ExpertPlan> TakeExpert(int layer, int expert);
  absl::Status CheckAllTaken() const;
  bool IsBeyondLayers(std::string_view name) const;
  // The three matrices of a shared expert have one type.
  kernels::DType SharedDType(int layer, kernels::DType dtype) const;

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const TensorNames& names_;
  std::set<std::string> taken_;
};

absl::StatusOr<RowSlice> Planner::Take(const std::string& name,
                                       const Shape& shape) {
  const auto found = checkpoint_.tensors().find(name);
  if (found == checkpoint_.tensors().end()) {
    return absl::InvalidArgumentError(absl::StrCat(
        checkpoint_.path().string(), " has no tensor '", name,
        "', which model_type ", config_.model_type, " with this config needs"));
  }
  const SourceTensor& tensor = found->second;
  const std::string where = absl::StrCat(checkpoint_.file_of(tensor).string(),
                                         ": tensor '", name, "' ");
  // A vector may be written as a matrix of one row, and such a matrix as one.
  Shape other = shape;
  if (shape.size() == 1) other.insert(other.begin(), 1);
  if (shape.size() == 2 && shape[0] == 1) other.erase(other.begin());
  if (tensor.info.shape != shape && tensor.info.shape != other) {
    return absl::InvalidArgumentError(absl::StrCat(
        where, "has the shape ", tensor.info.ShapeText(),
        ", but config.json says [", absl::StrJoin(shape, ", "), "]"));
  }
  const std::optional<kernels::DType> dtype = KernelDType(tensor);
  if (!dtype.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, "has the dtype ", tensor.info.dtype,
                     ", which is not supported; F32, F16, BF16 and the "
                     "block formats of GGUF are"));
  }
  taken_.insert(name);
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return RowSlice{.tensor = tensor,
                  .dtype = *dtype,
                  .rows = rows,
                  .cols = static_cast<int32_t>(shape.back())};
}

absl::StatusOr<std::vector<RowSlice>> Planner::TakeQkv(int layer) {
  const int64_t kv_rows = int64_t{config_.kv_heads} * config_.head_dim;
  const int64_t q_rows = int64_t{config_.heads} * config_.head_dim;
  ASSIGN_OR_RETURN(RowSlice q,
                   Take(NameOf(names_.q, layer), {q_rows, config_.dim}));
  ASSIGN_OR_RETURN(RowSlice k,
                   Take(NameOf(names_.k, layer), {kv_rows, config_.dim}));
  ASSIGN_OR_RETURN(RowSlice v,
                   Take(NameOf(names_.v, layer), {kv_rows, config_.dim}));
  return std::vector<RowSlice>{std::move(q), std::move(k), std::move(v)};
}

absl::StatusOr<std::vector<RowSlice>> Planner::TakeQkvBias(int layer) {
  const int64_t kv_rows = int64_t{config_.kv_heads} * config_.head_dim;
  const int64_t q_rows = int64_t{config_.heads} * config_.head_dim;
  ASSIGN_OR_RETURN(RowSlice q, Take(NameOf(names_.q_bias, layer), {q_rows}));
  ASSIGN_OR_RETURN(RowSlice k, Take(NameOf(names_.k_bias, layer), {kv_rows}));
  ASSIGN_OR_RETURN(RowSlice v, Take(NameOf(names_.v_bias, layer), {kv_rows}));
  return std::vector<RowSlice>{std::move(q), std::move(k), std::move(v)};
}

absl::StatusOr<std::vector<RowSlice>> Planner::Parts(
    const ResidentShape& shape) {
  std::string_view pattern;
  switch (shape.role) {
    case ResidentRole::kQkv:
      return TakeQkv(shape.layer);
    case ResidentRole::kQkvBias:
      return TakeQkvBias(shape.layer);
    case ResidentRole::kEmbed:
      pattern = names_.embed;
      break;
    case ResidentRole::kHead:
      pattern = names_.head;
      break;
    case ResidentRole::kFinalNorm:
      pattern = names_.final_norm;
      break;
    case ResidentRole::kAttnNorm:
      pattern = names_.attn_norm;
      break;
    case ResidentRole::kQNorm:
      pattern = names_.q_norm;
      break;
    case ResidentRole::kKNorm:
      pattern = names_.k_norm;
      break;
    case ResidentRole::kO:
      pattern = names_.o;
      break;
    case ResidentRole::kOBias:
      pattern = names_.o_bias;
      break;
    case ResidentRole::kChoiceBias:
      pattern = names_.choice_bias;
      break;
    case ResidentRole::kSharedRouter:
      pattern = names_.shared_router;
      break;
    case ResidentRole::kSharedGate:
      pattern = names_.shared_gate;
      break;
    case ResidentRole::kSharedUp:
      pattern = names_.shared_up;
      break;
    case ResidentRole::kSharedDown:
      pattern = names_.shared_down;
      break;
    case ResidentRole::kFfnNorm:
      pattern = names_.ffn_norm;
      break;
    case ResidentRole::kRouter:
      pattern = names_.router;
      break;
  }
  const Shape wanted =
      shape.panels ? Shape{shape.rows, shape.cols} : Shape{shape.cols};
  ASSIGN_OR_RETURN(RowSlice part, Take(NameOf(pattern, shape.layer), wanted));
  return std::vector<RowSlice>{std::move(part)};
}

absl::StatusOr<std::vector<ExpertPlan>> Planner::TakeFused(int layer) {
  const int32_t inner = config_.layers[layer].ffn_inner;
  const bool apart = Has(NameOf(names_.stacked_gate, layer));
  RowSlice gate, up;
  int64_t stride = inner;  // from one expert's rows to the next one's
  if (apart) {
    const Shape shape = {config_.experts, inner, config_.dim};
    ASSIGN_OR_RETURN(gate, Take(NameOf(names_.stacked_gate, layer), shape));
    ASSIGN_OR_RETURN(up, Take(NameOf(names_.stacked_up, layer), shape));
  } else {
    ASSIGN_OR_RETURN(gate,
                     Take(NameOf(names_.fused_gate_up, layer),
                          {config_.experts, 2 * int64_t{inner}, config_.dim}));
    up = gate;
    stride = 2 * int64_t{inner};
  }
  ASSIGN_OR_RETURN(const RowSlice down,
                   Take(NameOf(names_.fused_down, layer),
                        {config_.experts, config_.dim, inner}));
  const auto rows_of = [](const RowSlice& all, int64_t first, int32_t rows) {
    RowSlice slice = all;
    slice.first_row = first;
    slice.rows = rows;
    return slice;
  };
  std::vector<ExpertPlan> experts;
  for (int64_t e = 0; e < config_.experts; ++e) {
    experts.push_back(
        {.gate = rows_of(gate, e * stride, inner),
         .up = rows_of(up, e * stride + (apart ? 0 : inner), inner),
         .down = rows_of(down, e * config_.dim, config_.dim)});
  }
  return experts;
}

absl::StatusOr<ExpertPlan> Planner::TakeExpert(int layer, int expert) {
  const LayerConfig& config = config_.layers[layer];
  const Shape wide = {config.ffn_inner, config_.dim};
  const Shape narrow = {config_.dim, config.ffn_inner};
  const auto name = [&](std::string_view one, std::string_view dense) {
    return NameOf(config.moe ? one : dense, layer, expert);
  };
  ExpertPlan plan;
  ASSIGN_OR_RETURN(plan.gate,
                   Take(name(names_.expert_gate, names_.dense_gate), wide));
  ASSIGN_OR_RETURN(plan.up,
                   Take(name(names_.expert_up, names_.dense_up), wide));
  ASSIGN_OR_RETURN(plan.down,
                   Take(name(names_.expert_down, names_.dense_down), narrow));
  return plan;
}

absl::StatusOr<LayerPlan> Planner::PlanLayer(int layer) {
  LayerPlan plan;
  if (config_.layers[layer].moe && (Has(NameOf(names_.fused_gate_up, layer)) ||
                                    Has(NameOf(names_.stacked_gate, layer)))) {
    ASSIGN_OR_RETURN(plan.experts, TakeFused(layer));
  } else {
    for (int e = 0; e < config_.experts_in(layer); ++e) {
      ASSIGN_OR_RETURN(ExpertPlan expert, TakeExpert(layer, e));
      plan.experts.push_back(std::move(expert));
    }
  }
  // One pair of types per layer, so that all its blobs are of one size.
  kernels::DType dtype = plan.experts.front().gate.dtype;
  kernels::DType down = plan.experts.front().down.dtype;
  for (const ExpertPlan& expert : plan.experts) {
    dtype = Wider(Wider(dtype, expert.gate.dtype), expert.up.dtype);
    down = Wider(down, expert.down.dtype);
  }
  plan.shape = ExpertShapeOf(config_, layer, dtype, down);
  plan.blob_bytes = BlobBytes(plan.shape);
  return plan;
}

// Layers that predict further tokens stand behind the decoder's own.
bool Planner::IsBeyondLayers(std::string_view name) const {
  if (config_.next_token_layers == 0) return false;
  const std::string_view before =
      names_.attn_norm.substr(0, names_.attn_norm.find("$0"));
  if (!name.starts_with(before)) return false;
  name.remove_prefix(before.size());
  size_t layer = 0;
  const auto [rest, error] =
      std::from_chars(name.data(), name.data() + name.size(), layer);
  return error == std::errc() && layer >= config_.layers.size();
}

kernels::DType Planner::SharedDType(int layer, kernels::DType dtype) const {
  for (const std::string_view pattern :
       {names_.shared_gate, names_.shared_up, names_.shared_down}) {
    const auto found = checkpoint_.tensors().find(NameOf(pattern, layer));
    if (found == checkpoint_.tensors().end()) continue;
    dtype = Wider(dtype, KernelDType(found->second).value_or(dtype));
  }
  return dtype;
}

// A tensor that nothing reads would change the model's output if it counted:
// the config and the weights then do not belong together.
absl::Status Planner::CheckAllTaken() const {
  for (const auto& [name, tensor] : checkpoint_.tensors()) {
    if (taken_.contains(name) || name.ends_with(".rotary_emb.inv_freq") ||
        (config_.tied_head && name == names_.head) || IsBeyondLayers(name)) {
      continue;
    }
    return absl::InvalidArgumentError(absl::StrCat(
        checkpoint_.file_of(tensor).string(), ": tensor '", Printable(name),
        "' has no place in model_type ", config_.model_type, " with ",
        config_.layers.size(), " layers and ", config_.experts,
        " experts, as config.json says"));
  }
  return absl::OkStatus();
}

absl::StatusOr<PackPlan> Planner::Plan() {
  PackPlan plan;
  for (const ResidentShape& shape : ResidentShapes(config_)) {
    ASSIGN_OR_RETURN(std::vector<RowSlice> parts, Parts(shape));
    kernels::DType dtype = kernels::DType::kF32;
    if (shape.panels) {
      dtype = parts.front().dtype;
      for (const RowSlice& part : parts) dtype = Wider(dtype, part.dtype);
    }
    if (IsSharedExpert(shape.role)) dtype = SharedDType(shape.layer, dtype);
    plan.total_bytes += shape.bytes(dtype);
    plan.resident.push_back({shape, dtype, std::move(parts)});
  }
  for (size_t l = 0; l < config_.layers.size(); ++l) {
    ASSIGN_OR_RETURN(LayerPlan layer, PlanLayer(static_cast<int>(l)));
    plan.total_bytes +=
        layer.blob_bytes * static_cast<int64_t>(layer.experts.size());
    plan.layers.push_back(std::move(layer));
  }
  RETURN_IF_ERROR(CheckAllTaken());
  return plan;
}

}  // namespace

absl::StatusOr<PackPlan> PlanPack(const Checkpoint& checkpoint,
                                  const ModelConfig& config,
                                  const Family& family) {
  return Planner(checkpoint, config, family).Plan();
}

}  // namespace bullpen
