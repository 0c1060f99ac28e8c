#include "engine/model/families.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_join.h"
#include "base/strings.h"

namespace bullpen {
namespace {

constexpr IntRange kWidth{.least = 1, .most = 1 << 20};
constexpr IntRange kExperts{.least = 1, .most = 1024};
constexpr IntRange kChosen{.least = 1, .most = 32};

constexpr TensorNames kQwen3Names = {
    .embed = "model.embed_tokens.weight",
    .final_norm = "model.norm.weight",
    .head = "lm_head.weight",
    .attn_norm = "model.layers.$0.input_layernorm.weight",
    .q = "model.layers.$0.self_attn.q_proj.weight",
    .k = "model.layers.$0.self_attn.k_proj.weight",
    .v = "model.layers.$0.self_attn.v_proj.weight",
    .o = "model.layers.$0.self_attn.o_proj.weight",
    .q_norm = "model.layers.$0.self_attn.q_norm.weight",
    .k_norm = "model.layers.$0.self_attn.k_norm.weight",
    .ffn_norm = "model.layers.$0.post_attention_layernorm.weight",
    .dense_gate = "model.layers.$0.mlp.gate_proj.weight",
    .dense_up = "model.layers.$0.mlp.up_proj.weight",
    .dense_down = "model.layers.$0.mlp.down_proj.weight",
    .router = "model.layers.$0.mlp.gate.weight",
    .expert_gate = "model.layers.$0.mlp.experts.$1.gate_proj.weight",
    .expert_up = "model.layers.$0.mlp.experts.$1.up_proj.weight",
    .expert_down = "model.layers.$0.mlp.experts.$1.down_proj.weight",
    .fused_gate_up = "model.layers.$0.mlp.experts.gate_up_proj",
    .fused_down = "model.layers.$0.mlp.experts.down_proj",
};

// Attention of both: per-head norms of q and k, full rotation, no biases.
void ReadQwen3Attention(ConfigFields& fields, ModelConfig& config,
                        int32_t default_head_dim) {
  config.head_dim =
      fields.Int("head_dim", {.least = 2, .most = 1 << 14}, default_head_dim);
  config.rotary_dim = config.head_dim;
  config.qk_norm = QkNorm::kPerHead;
  if (fields.Bool("attention_bias", false)) {
    fields.Refuse("attention_bias", "only false is");
  }
}

void ReadQwen3(ConfigFields& fields, ModelConfig& config) {
  ReadQwen3Attention(fields, config, 128);
  const int32_t inner = fields.Int("intermediate_size", kWidth);
  for (LayerConfig& layer : config.layers) layer.ffn_inner = inner;
}

// The released spelling, or the one of transformers 5.
const char* ExpertCountKey(const ConfigFields& fields) {
  return fields.Has("num_experts") ? "num_experts" : "num_local_experts";
}

void ReadQwen3Moe(ConfigFields& fields, ModelConfig& config) {
  // A file without head_dim means what its q_proj has: dim / heads.
  ReadQwen3Attention(fields, config, config.dim / config.heads);
  config.experts = fields.Int(ExpertCountKey(fields), kExperts);
  if (fields.Has("num_experts") &&
      fields.Int("num_local_experts", kExperts, config.experts) !=
          config.experts) {
    fields.Refuse("num_local_experts", "num_experts says otherwise");
  }
  config.experts_per_token = fields.Int("num_experts_per_tok", kChosen);
  if (config.experts_per_token > config.experts) {
    fields.Refuse("num_experts_per_tok",
                  absl::StrCat("there are ", config.experts, " experts"));
  }
  config.router.renormalise = fields.Bool("norm_topk_prob", false);

  const int32_t layers = static_cast<int32_t>(config.layers.size());
  const int32_t step =
      fields.Int("decoder_sparse_step", {.least = 1, .most = 1 << 16}, 1);
  for (int32_t l = 0; l < layers; ++l) {
    config.layers[l].moe = (l + 1) % step == 0;
  }
  for (const int32_t l :
       fields.Ints("mlp_only_layers", {.least = 0, .most = layers - 1})) {
    config.layers[l].moe = false;
  }
  const bool any_dense =
      std::any_of(config.layers.begin(), config.layers.end(),
                  [](const LayerConfig& layer) { return !layer.moe; });
  const int32_t expert_inner = fields.Int("moe_intermediate_size", kWidth);
  const int32_t dense_inner =
      any_dense ? fields.Int("intermediate_size", kWidth) : 0;
  for (LayerConfig& layer : config.layers) {
    layer.ffn_inner = layer.moe ? expert_inner : dense_inner;
  }
}

constexpr Family kFamilies[] = {
    {.model_type = "qwen3", .names = kQwen3Names, .read = ReadQwen3},
    {.model_type = "qwen3_moe", .names = kQwen3Names, .read = ReadQwen3Moe},
};

}  // namespace

absl::StatusOr<const Family*> FindFamily(std::string_view model_type) {
  std::vector<std::string> known;
  for (const Family& family : kFamilies) {
    if (family.model_type == model_type) return &family;
    known.emplace_back(family.model_type);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("model_type '", Printable(model_type),
                   "' is not supported; supported "
                   "are ",
                   absl::StrJoin(known, ", ")));
}

}  // namespace bullpen
