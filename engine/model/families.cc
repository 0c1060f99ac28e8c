#include "engine/model/families.h"

#include <algorithm>
#include <optional>
#include <string>

#include "absl/strings/str_join.h"
#include "base/strings.h"

namespace bullpen {
namespace {

constexpr IntRange kWidth{.least = 1, .most = 1 << 20};
constexpr IntRange kExperts{.least = 1, .most = 1024};
constexpr IntRange kChosen{.least = 1, .most = 32};
constexpr IntRange kLayers{.least = 0, .most = 4096};
constexpr NumberRange kScale{.least = 0, .most = 1e6};

// What most families call their tensors; each changes what it calls otherwise.
constexpr TensorNames kCommonNames = {
    .embed = "model.embed_tokens.weight",
    .final_norm = "model.norm.weight",
    .head = "lm_head.weight",
    .attn_norm = "model.layers.$0.input_layernorm.weight",
    .q = "model.layers.$0.self_attn.q_proj.weight",
    .k = "model.layers.$0.self_attn.k_proj.weight",
    .v = "model.layers.$0.self_attn.v_proj.weight",
    .o = "model.layers.$0.self_attn.o_proj.weight",
    .q_bias = "model.layers.$0.self_attn.q_proj.bias",
    .k_bias = "model.layers.$0.self_attn.k_proj.bias",
    .v_bias = "model.layers.$0.self_attn.v_proj.bias",
    .o_bias = "model.layers.$0.self_attn.o_proj.bias",
    .q_norm = "model.layers.$0.self_attn.q_norm.weight",
    .k_norm = "model.layers.$0.self_attn.k_norm.weight",
    .ffn_norm = "model.layers.$0.post_attention_layernorm.weight",
    .dense_gate = "model.layers.$0.mlp.gate_proj.weight",
    .dense_up = "model.layers.$0.mlp.up_proj.weight",
    .dense_down = "model.layers.$0.mlp.down_proj.weight",
    .router = "model.layers.$0.mlp.gate.weight",
    .choice_bias = "model.layers.$0.mlp.gate.e_score_correction_bias",
    .shared_router = "model.layers.$0.mlp.shared_expert_gate.weight",
    .shared_gate = "model.layers.$0.mlp.shared_experts.gate_proj.weight",
    .shared_up = "model.layers.$0.mlp.shared_experts.up_proj.weight",
    .shared_down = "model.layers.$0.mlp.shared_experts.down_proj.weight",
    .expert_gate = "model.layers.$0.mlp.experts.$1.gate_proj.weight",
    .expert_up = "model.layers.$0.mlp.experts.$1.up_proj.weight",
    .expert_down = "model.layers.$0.mlp.experts.$1.down_proj.weight",
    .fused_gate_up = "model.layers.$0.mlp.experts.gate_up_proj",
    .fused_down = "model.layers.$0.mlp.experts.down_proj",
};

constexpr TensorNames MixtralNames() {
  TensorNames names = kCommonNames;
  names.router = "model.layers.$0.block_sparse_moe.gate.weight";
  names.choice_bias =
      "model.layers.$0.block_sparse_moe.e_score_correction_bias";
  names.expert_gate = "model.layers.$0.block_sparse_moe.experts.$1.w1.weight";
  names.expert_up = "model.layers.$0.block_sparse_moe.experts.$1.w3.weight";
  names.expert_down = "model.layers.$0.block_sparse_moe.experts.$1.w2.weight";
  return names;
}

constexpr TensorNames Qwen2MoeNames() {
  TensorNames names = kCommonNames;
  names.shared_gate = "model.layers.$0.mlp.shared_expert.gate_proj.weight";
  names.shared_up = "model.layers.$0.mlp.shared_expert.up_proj.weight";
  names.shared_down = "model.layers.$0.mlp.shared_expert.down_proj.weight";
  return names;
}

constexpr TensorNames ErnieNames() {
  TensorNames names = kCommonNames;
  names.choice_bias = "model.layers.$0.mlp.moe_statics.e_score_correction_bias";
  return names;
}

constexpr TensorNames FlexOlmoNames() {
  TensorNames names = kCommonNames;
  names.attn_norm = "model.layers.$0.post_attention_layernorm.weight";
  names.ffn_norm = "model.layers.$0.post_feedforward_layernorm.weight";
  return names;
}

// partial_rotary_factor at the top or in rope_parameters, or rotary_dim.
double RotaryShare(ConfigFields& fields, double otherwise) {
  constexpr NumberRange kShare{.least = 0, .most = 1};
  double share = fields.Number("partial_rotary_factor", kShare, otherwise);
  if (fields.Has("rope_parameters")) {
    ConfigFields rope = fields.Object("rope_parameters");
    share = rope.Number("partial_rotary_factor", kShare, share);
    fields.Fail(rope.status());
  }
  return share;
}

// Grouped queries over heads of one width. A family that rotates only a part
// of it says which share.
struct HeadRule {
  int32_t default_dim = 0;  // 0: dim / heads, which is what q_proj then has
  std::optional<double> rotary_share = {};
};

void ReadHeads(ConfigFields& fields, ModelConfig& config,
               const HeadRule& rule = {}) {
  const int32_t dim =
      rule.default_dim > 0 ? rule.default_dim : config.dim / config.heads;
  config.head_dim = fields.Int("head_dim", {.least = 2, .most = 1 << 14}, dim);
  if (!rule.rotary_share.has_value() && RotaryShare(fields, 1) != 1) {
    fields.Refuse("partial_rotary_factor", "only 1 is");
  }
  config.rope.rotary_dim =
      static_cast<int32_t>(config.head_dim * rule.rotary_share.value_or(1));
}

void ReadAttentionBias(ConfigFields& fields, ModelConfig& config) {
  config.qkv_bias = fields.Bool("attention_bias", false);
  config.o_bias = config.qkv_bias;
}

// The released spelling, or the one of transformers 5.
int32_t ReadExpertCount(ConfigFields& fields,
                        std::initializer_list<const char*> keys) {
  const char* first = *keys.begin();
  for (const char* key : keys) {
    if (fields.Has(key)) {
      first = key;
      break;
    }
  }
  const int32_t experts = fields.Int(first, kExperts);
  for (const char* key : keys) {
    if (fields.Int(key, kExperts, experts) != experts) {
      fields.Refuse(key, absl::StrCat(first, " says otherwise"));
    }
  }
  return experts;
}

void ReadExperts(ConfigFields& fields, ModelConfig& config, const char* k_key,
                 std::initializer_list<const char*> count_keys) {
  config.experts = ReadExpertCount(fields, count_keys);
  config.experts_per_token = fields.Int(k_key, kChosen);
  if (config.experts_per_token > config.experts) {
    fields.Refuse(k_key,
                  absl::StrCat("there are ", config.experts, " experts"));
  }
}

// The widths of the layers whose `moe` is set already.
void ReadWidths(ConfigFields& fields, ModelConfig& config,
                const char* expert_key, const char* dense_key) {
  const int32_t expert_inner = fields.Int(expert_key, kWidth);
  for (LayerConfig& layer : config.layers) {
    layer.ffn_inner = layer.moe ? expert_inner : fields.Int(dense_key, kWidth);
  }
}

void SetAllMoe(ModelConfig& config) {
  for (LayerConfig& layer : config.layers) layer.moe = true;
}

// decoder_sparse_step and mlp_only_layers of the Qwen families.
void ReadQwenLayers(ConfigFields& fields, ModelConfig& config) {
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
  ReadWidths(fields, config, "moe_intermediate_size", "intermediate_size");
}

void ReadLeadingDense(ConfigFields& fields, ModelConfig& config) {
  const int32_t dense = fields.Int("first_k_dense_replace", kLayers, 0);
  for (size_t l = 0; l < config.layers.size(); ++l) {
    config.layers[l].moe = static_cast<int32_t>(l) >= dense;
  }
  ReadWidths(fields, config, "moe_intermediate_size", "intermediate_size");
}

// n_shared_experts is one FFN of so many widths of an expert.
void ReadPlainShared(ConfigFields& fields, ModelConfig& config,
                     const char* key) {
  const int32_t shared = fields.Int(key, {.least = 0, .most = 64}, 0);
  if (shared == 0) return;
  config.shared_expert = SharedExpert::kPlain;
  config.shared_inner = shared * fields.Int("moe_intermediate_size",
                                            {.least = 1, .most = 1 << 20});
}

// Sigmoid scores, a bias for the choice, groups by their two best: DeepSeek-V3
// and those after it.
void ReadSigmoidRouter(ConfigFields& fields, ModelConfig& config) {
  kernels::RouterRule& router = config.router;
  router.score = kernels::RouterRule::Score::kSigmoid;
  config.choice_bias = true;
  router.groups = fields.Int("n_group", kExperts, 1);
  router.groups_kept = fields.Int("topk_group", kExperts, 1);
  router.group_score_top2 = true;
  if (router.groups_kept > router.groups ||
      config.experts % router.groups != 0) {
    fields.Refuse("n_group",
                  absl::StrCat("it must divide ", config.experts,
                               " experts and be at least topk_group = ",
                               router.groups_kept));
  }
  router.renormalise = fields.Bool("norm_topk_prob", true);
  router.norm_eps = 1e-20f;
  router.scaling =
      static_cast<float>(fields.Number("routed_scaling_factor", kScale, 1));
}

void ReadLlama(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config);
  ReadAttentionBias(fields, config);
  if (fields.Bool("mlp_bias", false))
    fields.Refuse("mlp_bias", "only false is");
  ReadWidths(fields, config, "intermediate_size", "intermediate_size");
}

void ReadQwen3(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config, {.default_dim = 128});
  config.qk_norm = QkNorm::kPerHead;
  ReadAttentionBias(fields, config);
  ReadWidths(fields, config, "intermediate_size", "intermediate_size");
}

void ReadQwen3Moe(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config);
  config.qk_norm = QkNorm::kPerHead;
  ReadAttentionBias(fields, config);
  ReadExperts(fields, config, "num_experts_per_tok",
              {"num_experts", "num_local_experts"});
  config.router.renormalise = fields.Bool("norm_topk_prob", false);
  ReadQwenLayers(fields, config);
}

void ReadQwen2Moe(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config);
  config.qkv_bias = fields.Bool("qkv_bias", true);
  ReadExperts(fields, config, "num_experts_per_tok",
              {"num_experts", "num_local_experts"});
  config.router.renormalise = fields.Bool("norm_topk_prob", false);
  config.shared_expert = SharedExpert::kSigmoidGated;
  config.shared_inner = fields.Int("shared_expert_intermediate_size", kWidth);
  ReadQwenLayers(fields, config);
}

void ReadOlmoe(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config);
  config.qk_norm = QkNorm::kWhole;
  ReadAttentionBias(fields, config);
  if (fields.Has("clip_qkv")) fields.Refuse("clip_qkv", "only null is");
  ReadExperts(fields, config, "num_experts_per_tok",
              {"num_experts", "num_local_experts"});
  config.router.renormalise = fields.Bool("norm_topk_prob", false);
  SetAllMoe(config);
  ReadWidths(fields, config, "intermediate_size", "intermediate_size");
}

void ReadFlexOlmo(ConfigFields& fields, ModelConfig& config) {
  ReadOlmoe(fields, config);
  config.norm_place = NormPlace::kAfter;
}

void ReadMixtral(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config);
  ReadExperts(fields, config, "num_experts_per_tok",
              {"num_local_experts", "num_experts"});
  config.router.renormalise = true;
  SetAllMoe(config);
  ReadWidths(fields, config, "intermediate_size", "intermediate_size");
}

void ReadGlm4Moe(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config, {.rotary_share = RotaryShare(fields, 0.5)});
  config.qkv_bias = fields.Bool("attention_bias", false);
  if (fields.Bool("use_qk_norm", false)) config.qk_norm = QkNorm::kPerHead;
  ReadExperts(fields, config, "num_experts_per_tok",
              {"n_routed_experts", "num_local_experts"});
  ReadSigmoidRouter(fields, config);
  ReadLeadingDense(fields, config);
  ReadPlainShared(fields, config, "n_shared_experts");
  config.next_token_layers = fields.Int("num_nextn_predict_layers", kLayers, 0);
}

void ReadDots1(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config);
  config.qk_norm = QkNorm::kPerHead;
  ReadAttentionBias(fields, config);
  ReadExperts(fields, config, "num_experts_per_tok",
              {"n_routed_experts", "num_local_experts"});
  ReadSigmoidRouter(fields, config);
  ReadLeadingDense(fields, config);
  ReadPlainShared(fields, config, "n_shared_experts");
}

void ReadMinimaxM2(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config, {.rotary_share = RotaryShare(fields, 1)});
  if (fields.Has("rotary_dim")) {
    config.rope.rotary_dim =
        fields.Int("rotary_dim", {.least = 2, .most = config.head_dim});
  }
  config.qk_norm = QkNorm::kWhole;
  ReadExperts(fields, config, "num_experts_per_tok",
              {"num_local_experts", "num_experts"});
  config.router.score = kernels::RouterRule::Score::kSigmoid;
  config.router.renormalise = true;
  config.choice_bias = true;
  SetAllMoe(config);
  ReadWidths(fields, config, "intermediate_size", "intermediate_size");
}

void ReadErnie(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config);
  config.rope.interleaved = true;
  if (fields.Bool("use_bias", false))
    fields.Refuse("use_bias", "only false is");
  ReadExperts(fields, config, "moe_k", {"moe_num_experts"});
  config.choice_bias = true;
  config.router.renormalise = true;
  const int32_t layers = static_cast<int32_t>(config.layers.size());
  const int32_t first = fields.Int("moe_layer_start_index", kLayers, 1);
  const int32_t step = fields.Int("moe_layer_interval", {.least = 1}, 1);
  int32_t last = layers - 1;
  if (fields.Number("moe_layer_end_index", {.least = -2, .most = 4096}, -1) >=
      0) {
    last = fields.Int("moe_layer_end_index", kLayers);
  }
  for (int32_t l = 0; l < layers; ++l) {
    config.layers[l].moe = (l + 1) % step == 0 && l >= first && l <= last;
  }
  ReadWidths(fields, config, "moe_intermediate_size", "intermediate_size");
  ReadPlainShared(fields, config, "moe_num_shared_experts");
}

constexpr Family kFamilies[] = {
    {"dots1", kCommonNames, ReadDots1},
    {"ernie4_5_moe", ErnieNames(), ReadErnie},
    {"flex_olmo", FlexOlmoNames(), ReadFlexOlmo},
    {"glm4_moe", kCommonNames, ReadGlm4Moe},
    {"llama", kCommonNames, ReadLlama},
    {"minimax_m2", MixtralNames(), ReadMinimaxM2},
    {"mixtral", MixtralNames(), ReadMixtral},
    {"olmoe", kCommonNames, ReadOlmoe},
    {"qwen2_moe", Qwen2MoeNames(), ReadQwen2Moe},
    {"qwen3", kCommonNames, ReadQwen3},
    {"qwen3_moe", kCommonNames, ReadQwen3Moe},
};

}  // namespace

absl::StatusOr<const Family*> FindFamily(std::string_view model_type) {
  std::vector<std::string> known;
  for (const Family& family : kFamilies) {
    if (family.model_type == model_type) return &family;
    known.emplace_back(family.model_type);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "model_type '", Printable(model_type),
      "' is not supported; supported are ", absl::StrJoin(known, ", ")));
}

}  // namespace bullpen
