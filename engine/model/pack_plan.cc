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
#include "engine/model/scaled_tensor.h"

namespace bullpen {
namespace {

std::string NameOf(std::string_view pattern, int layer, int expert = 0) {
  return absl::Substitute(Absl(pattern), layer, expert);
}

// The type that holds both exactly.
kernels::DType Wider(kernels::DType a, kernels::DType b) {
  if (a == b) return a;
  return kernels::IsPlain(a) || kernels::IsPlain(b) ? kernels::DType::kF32
                                                    : kernels::DType::kQ8_ANY;
}

// The one type that holds what several slices have.
class CommonType {
 public:
  void Add(const RowSlice& slice) {
    type_ = any_ ? Wider(type_, slice.dtype) : slice.dtype;
    any_ = true;
    stored_.insert(slice.tensor.info.dtype);
    fp8_ = fp8_ || IsFp8(slice.tensor);
    transposed_ = transposed_ || (slice.transposed && !IsFp8(slice.tensor));
  }
  kernels::DType type() const { return type_; }
  // Why it is not the type that is stored; empty if it is.
  std::string reason() const {
    if (stored_.size() > 1) {
      return absl::StrCat("holds ", absl::StrJoin(stored_, " and "),
                          " exactly");
    }
    if (!any_ || *stored_.begin() == DTypeName(type_)) return "";
    if (fp8_) return "the narrowest that holds FP8 times its scales exactly";
    return transposed_ ? "stored transposed, and blocks run along rows" : "";
  }

 private:
  bool any_ = false;
  kernels::DType type_ = kernels::DType::kF32;
  std::set<std::string> stored_;
  bool fp8_ = false;
  bool transposed_ = false;
};

// `count` rows of a slice from its row `first` on, every step-th.
RowSlice RowsOf(RowSlice slice, int64_t first, int64_t count,
                int64_t step = 1) {
  slice.first_row += first;
  slice.rows = count;
  slice.row_step = step;
  return slice;
}

// `count` rows of a slice from its row `first` on, as columns. Blocks run along
// rows, so those of a block type become floats.
RowSlice TransposeOf(RowSlice slice, int64_t first, int32_t count) {
  if (!kernels::IsPlain(slice.dtype)) slice.dtype = kernels::DType::kF32;
  slice.transposed = true;
  slice.first_col = slice.first_row + first;
  slice.first_row = 0;
  slice.rows = std::exchange(slice.cols, count);
  return slice;
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
  absl::StatusOr<std::vector<RowSlice>> TakeUp(const ResidentShape& shape);
  absl::StatusOr<std::vector<RowSlice>> TakeSplitUp(const ResidentShape& shape);
  absl::Status TakeStackedBiases(int layer, std::vector<ExpertPlan>& experts);
  absl::StatusOr<LayerPlan> PlanLayer(int layer);
  absl::StatusOr<std::vector<ExpertPlan>> TakeFused(int layer);
  absl::StatusOr<std::vector<ExpertPlan>> TakeTurned(int layer);
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

absl::StatusOr<std::vector<RowSlice>> Planner::Parts(
    const ResidentShape& shape) {
  if (shape.kind == ResidentKind::kKeyUp ||
      shape.kind == ResidentKind::kValueUp) {
    return TakeUp(shape);
  }
  std::vector<RowSlice> parts;
  for (const ResidentPart& part : shape.parts) {
    ASSIGN_OR_RETURN(
        RowSlice slice,
        Take(NameOf(names_.*part.source, shape.layer),
             shape.panels() ? Shape{part.rows, shape.cols} : Shape{part.rows}));
    parts.push_back(std::move(slice));
  }
  return parts;
}

// The rows of kv_b of each head, for keys (transposed) or for values.
absl::StatusOr<std::vector<RowSlice>> Planner::TakeUp(
    const ResidentShape& shape) {
  const LatentAttention& latent = config_.latent;
  const int64_t head_rows = latent.nope_dim + latent.value_dim;
  if (Has(NameOf(names_.split_k_b, shape.layer))) return TakeSplitUp(shape);
  ASSIGN_OR_RETURN(const RowSlice all,
                   Take(NameOf(names_.*shape.parts.front().source, shape.layer),
                        {config_.heads * head_rows, latent.kv_rank}));
  std::vector<RowSlice> heads;
  for (int64_t h = 0; h < config_.heads; ++h) {
    heads.push_back(
        shape.kind == ResidentKind::kKeyUp
            ? TransposeOf(all, h * head_rows, latent.nope_dim)
            : RowsOf(all, h * head_rows + latent.nope_dim, latent.value_dim));
  }
  return heads;
}

absl::StatusOr<std::vector<RowSlice>> Planner::TakeSplitUp(
    const ResidentShape& shape) {
  const bool key = shape.kind == ResidentKind::kKeyUp;
  ASSIGN_OR_RETURN(
      const RowSlice all,
      Take(NameOf(key ? names_.split_k_b : names_.split_v_b, shape.layer),
           {config_.heads, shape.rows, shape.cols}));
  std::vector<RowSlice> heads;
  for (int64_t h = 0; h < config_.heads; ++h) {
    heads.push_back(RowsOf(all, h * shape.rows, shape.rows));
  }
  return heads;
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
  std::vector<ExpertPlan> experts;
  for (int64_t e = 0; e < config_.experts; ++e) {
    experts.push_back(
        {.gate = RowsOf(gate, e * stride, inner),
         .up = RowsOf(up, e * stride + (apart ? 0 : inner), inner),
         .down = RowsOf(down, e * config_.dim, config_.dim)});
  }
  RETURN_IF_ERROR(TakeStackedBiases(layer, experts));
  return experts;
}

absl::Status Planner::TakeStackedBiases(int layer,
                                        std::vector<ExpertPlan>& experts) {
  if (!config_.expert_bias) return absl::OkStatus();
  const int32_t inner = config_.layers[layer].ffn_inner;
  const std::pair<std::string_view, int32_t> sources[] = {
      {names_.stacked_gate_bias, inner},
      {names_.stacked_up_bias, inner},
      {names_.stacked_down_bias, config_.dim}};
  for (const auto& [name, size] : sources) {
    ASSIGN_OR_RETURN(const RowSlice all,
                     Take(NameOf(name, layer), {config_.experts, size}));
    for (int32_t e = 0; e < config_.experts; ++e) {
      experts[e].biases.push_back(TransposeOf(all, e, 1));
    }
  }
  return absl::OkStatus();
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
  if (!config.moe && config_.mlp_bias) {
    const auto take_bias = [&](std::string_view name, int32_t size) {
      return Take(NameOf(name, layer), {size});
    };
    ASSIGN_OR_RETURN(const RowSlice gate,
                     take_bias(names_.dense_gate_bias, config.ffn_inner));
    ASSIGN_OR_RETURN(const RowSlice up,
                     take_bias(names_.dense_up_bias, config.ffn_inner));
    ASSIGN_OR_RETURN(const RowSlice down,
                     take_bias(names_.dense_down_bias, config_.dim));
    for (const RowSlice& row : {gate, up, down}) {
      plan.biases.push_back(TransposeOf(row, 0, 1));
    }
  }
  return plan;
}

// gpt-oss: rows of gate and up take turns, in a transposed matrix or a packed
// one.
absl::StatusOr<std::vector<ExpertPlan>> Planner::TakeTurned(int layer) {
  const int32_t inner = config_.layers[layer].ffn_inner;
  const int32_t dim = config_.dim;
  const bool packed = Has(NameOf(names_.packed_gate_up, layer));
  const auto take = [&](std::string_view packed_name, std::string_view name,
                        int64_t rows, int64_t cols) {
    return packed
               ? Take(NameOf(packed_name, layer), {config_.experts, rows, cols})
               : Take(NameOf(name, layer), {config_.experts, cols, rows});
  };
  ASSIGN_OR_RETURN(const RowSlice gate_up,
                   take(names_.packed_gate_up, names_.turned_gate_up,
                        2 * int64_t{inner}, dim));
  ASSIGN_OR_RETURN(const RowSlice down,
                   take(names_.packed_down, names_.turned_down, dim, inner));
  ASSIGN_OR_RETURN(const RowSlice gate_up_bias,
                   Take(NameOf(names_.turned_gate_up_bias, layer),
                        {config_.experts, 2 * int64_t{inner}}));
  ASSIGN_OR_RETURN(
      const RowSlice down_bias,
      Take(NameOf(names_.turned_down_bias, layer), {config_.experts, dim}));
  std::vector<ExpertPlan> experts;
  for (int64_t e = 0; e < config_.experts; ++e) {
    const RowSlice both = packed ? RowsOf(gate_up, 2 * e * inner, 2 * inner)
                                 : TransposeOf(gate_up, e * dim, dim);
    const RowSlice bias = TransposeOf(gate_up_bias, e, 1);
    experts.push_back(
        {.gate = RowsOf(both, 0, inner, 2),
         .up = RowsOf(both, 1, inner, 2),
         .down = packed ? RowsOf(down, e * dim, dim)
                        : TransposeOf(down, e * inner, inner),
         .biases = {RowsOf(bias, 0, inner, 2), RowsOf(bias, 1, inner, 2),
                    TransposeOf(down_bias, e, 1)}});
  }
  return experts;
}

absl::StatusOr<LayerPlan> Planner::PlanLayer(int layer) {
  LayerPlan plan;
  const bool moe = config_.layers[layer].moe;
  if (moe && !names_.turned_down.empty()) {
    ASSIGN_OR_RETURN(plan.experts, TakeTurned(layer));
  } else if (moe && (Has(NameOf(names_.fused_gate_up, layer)) ||
                     Has(NameOf(names_.stacked_gate, layer)))) {
    ASSIGN_OR_RETURN(plan.experts, TakeFused(layer));
  } else {
    for (int e = 0; e < config_.experts_in(layer); ++e) {
      ASSIGN_OR_RETURN(ExpertPlan expert, TakeExpert(layer, e));
      plan.experts.push_back(std::move(expert));
    }
  }
  // One pair of types per layer, so that all its blobs are of one size.
  CommonType gate, down;
  for (const ExpertPlan& expert : plan.experts) {
    gate.Add(expert.gate);
    gate.Add(expert.up);
    down.Add(expert.down);
  }
  plan.shape = ExpertShapeOf(config_, layer, gate.type(), down.type());
  plan.gate_reason = gate.reason();
  plan.down_reason = down.reason();
  plan.blob_bytes = BlobBytes(plan.shape);
  return plan;
}

// Layers that predict further tokens stand behind the decoder's own, or have
// names of their own.
bool Planner::IsBeyondLayers(std::string_view name) const {
  if (!names_.further_tokens.empty() &&
      name.starts_with(names_.further_tokens)) {
    return true;
  }
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
    std::string reason;
    if (shape.panels()) {
      CommonType common;
      for (const RowSlice& part : parts) common.Add(part);
      dtype = common.type();
      reason = common.reason();
    }
    if (shape.shared_expert && shape.panels()) {
      dtype = SharedDType(shape.layer, dtype);
      if (dtype != parts.front().dtype) {
        reason = "the matrices of a shared expert have one type";
      }
    }
    plan.total_bytes += shape.bytes(dtype);
    plan.resident.push_back({shape, dtype, std::move(parts), reason});
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
