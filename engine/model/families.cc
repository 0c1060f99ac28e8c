#include "engine/model/families.h"

#include <cmath>
#include <limits>
#include <string>

#include "absl/strings/str_join.h"
#include "base/strings.h"
#include "engine/model/family_fields.h"
#include "engine/model/family_names.h"

namespace bullpen {
namespace {

using Score = kernels::RouterRule::Score;

void ReadLlama(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config);
  ReadAttentionBias(fields, config);
  config.o_bias = fields.Bool("attention_out_bias", config.o_bias);
  config.mlp_bias = fields.Bool("mlp_bias", false);
  ReadWidths(fields, config, "intermediate_size", "intermediate_size");
}

void ReadQwen3(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config, {.default_dim = 128});
  config.qk_norm = QkNorm::kPerHead;
  ReadAttentionBias(fields, config);
  ReadWindows(fields, config,
              {.layers = WindowedLayers::kFromMaxWindowLayers,
               .switched = true,
               .default_window = 4096});
  ReadWidths(fields, config, "intermediate_size", "intermediate_size");
}

void ReadQwen3Moe(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config);
  config.qk_norm = QkNorm::kPerHead;
  ReadAttentionBias(fields, config);
  ReadWindows(fields, config, {.switched = true, .default_window = 4096});
  ReadExperts(fields, config, "num_experts_per_tok",
              {"num_experts", "num_local_experts"});
  config.router.renormalise = fields.Bool("norm_topk_prob", false);
  ReadQwenLayers(fields, config);
}

void ReadQwen2Moe(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config);
  config.qkv_bias = fields.Bool("qkv_bias", true);
  ReadWindows(fields, config,
              {.layers = WindowedLayers::kEvenBelowMaxWindowLayers,
               .switched = true,
               .default_window = 4096});
  ReadExperts(fields, config, "num_experts_per_tok",
              {"num_experts", "num_local_experts"});
  config.router.renormalise = fields.Bool("norm_topk_prob", false);
  config.shared_expert = SharedExpert::kSigmoidGated;
  config.shared_inner =
      fields.Int("shared_expert_intermediate_size", kWidthRange);
  ReadQwenLayers(fields, config);
}

void ReadFlexOlmo(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config);
  config.qk_norm = QkNorm::kWhole;
  config.norm_place = NormPlace::kAfter;
  ReadAttentionBias(fields, config);
  ReadExperts(fields, config, "num_experts_per_tok",
              {"num_experts", "num_local_experts"});
  config.router.renormalise = fields.Bool("norm_topk_prob", false);
  ReadAllMoe(fields, config);
}

void ReadOlmoe(ConfigFields& fields, ModelConfig& config) {
  ReadFlexOlmo(fields, config);
  config.norm_place = NormPlace::kBefore;
  config.clip_qkv = fields.Number("clip_qkv", kScaleRange, 0);
}

void ReadMixtral(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config);
  ReadWindows(fields, config, {.layers = WindowedLayers::kAll});
  ReadExperts(fields, config, "num_experts_per_tok",
              {"num_local_experts", "num_experts"});
  config.router.renormalise = true;
  ReadAllMoe(fields, config);
}

void ReadPhimoe(ConfigFields& fields, ModelConfig& config) {
  ReadMixtral(fields, config);
  config.norm_kind = NormKind::kLayer;
  ReadAttentionBias(fields, config);
  config.head_bias = fields.Bool("lm_head_bias", false);
  config.router.score = Score::kSparseMixer;
  config.router.renormalise = false;
  config.router.jitter = static_cast<float>(
      fields.Number("router_jitter_noise", {.least = -1, .most = 1}, 0.01));
  if (config.experts_per_token != 2) {
    fields.Refuse("num_experts_per_tok", "only 2 is");
  }
  // It has its own factors of cosine and sine.
  if (config.rope.scaling == RopeScaling::kNone) return;
  ConfigFields rope = fields.Object(
      fields.Has("rope_parameters") ? "rope_parameters" : "rope_scaling");
  if (config.rope.scaling != RopeScaling::kLong || !rope.Has("short_mscale") ||
      !rope.Has("long_mscale")) {
    rope.Refuse("rope_type",
                "longrope with short_mscale and long_mscale is, and default");
  }
  config.rope.short_mscale = rope.Number("short_mscale", kScaleRange, 1);
  config.rope.long_mscale = rope.Number("long_mscale", kScaleRange, 1);
  fields.Fail(rope.status());
}

void ReadGraniteMoe(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config);
  ReadAttentionBias(fields, config);
  config.score_scale = fields.Number("attention_multiplier", kScaleRange, 1);
  config.embed_scale = fields.Number("embedding_multiplier", kScaleRange, 1);
  config.residual_scale = fields.Number("residual_multiplier", kScaleRange, 1);
  config.logit_scale = 1 / fields.Number("logits_scaling", kScaleRange, 1);
  ReadExperts(fields, config, "num_experts_per_tok",
              {"num_local_experts", "num_experts"});
  config.router.score = Score::kSoftmaxOverChosen;
  ReadAllMoe(fields, config);
}

// A config without a word on the rotation has the family's; null is none.
void ReadGptOssRotation(const ConfigFields& fields, ModelConfig& config) {
  if (fields.object().contains("rope_scaling") ||
      fields.object().contains("rope_parameters")) {
    return;
  }
  config.rope.scaling = RopeScaling::kYarn;
  config.rope.factor = 32;
  config.rope.original_context = 4096;
  config.rope.truncate = false;
}

void ReadGptOss(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config);
  ReadGptOssRotation(fields, config);
  ReadAttentionBias(fields, config, true);
  config.sinks = true;
  ReadWindows(fields, config,
              {.layers = WindowedLayers::kEven, .default_window = 128});
  ReadExperts(fields, config, "num_experts_per_tok",
              {"num_local_experts", "num_experts"});
  config.router.score = Score::kSoftmaxOverChosen;
  config.router_bias = true;
  config.expert_bias = true;
  constexpr NumberRange kLimit{.least = 0,
                               .most = std::numeric_limits<double>::infinity()};
  config.activation = {
      .kind = kernels::Activation::Kind::kClampedSwiGlu,
      .alpha =
          static_cast<float>(fields.Number("swiglu_alpha", kScaleRange, 1.702)),
      .limit = static_cast<float>(fields.Number("swiglu_limit", kLimit, 7))};
  ReadAllMoe(fields, config);
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
  config.next_token_layers =
      fields.Int("num_nextn_predict_layers", kLayerRange, 0);
}

void ReadDots1(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config);
  config.qk_norm = QkNorm::kPerHead;
  ReadAttentionBias(fields, config);
  ReadWindows(fields, config,
              {.layers = WindowedLayers::kFromMaxWindowLayers,
               .default_window = 4096,
               .default_layers = 62});
  ReadExperts(fields, config, "num_experts_per_tok",
              {"n_routed_experts", "num_local_experts"});
  ReadSigmoidRouter(fields, config, {.renormalise = false});
  ReadLeadingDense(fields, config);
  ReadPlainShared(fields, config, "n_shared_experts");
}

void ReadDeepseekV2(ConfigFields& fields, ModelConfig& config) {
  ReadLatentAttention(fields, config);
  config.rope.interleaved = true;
  config.mlp_bias = fields.Bool("mlp_bias", false);
  ReadExperts(fields, config, "num_experts_per_tok",
              {"n_routed_experts", "num_local_experts"});
  config.router.scaling = static_cast<float>(
      fields.Number("routed_scaling_factor", kScaleRange, 1));
  const std::string method = fields.String("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    ReadGroups(fields, config);
  } else if (method != "greedy") {
    fields.Refuse("topk_method", "greedy and group_limited_greedy are");
  }
  if (fields.String("scoring_func", "softmax") != "softmax") {
    fields.Refuse("scoring_func", "only softmax is");
  }
  // The released code then divides by the sum and leaves the factor out;
  // transformers passes over the key.
  if (fields.Bool("norm_topk_prob", false)) {
    fields.Refuse("norm_topk_prob", "only false is");
  }
  ReadLeadingDense(fields, config);
  ReadPlainShared(fields, config, "n_shared_experts");
}

void ReadDeepseekV3(ConfigFields& fields, ModelConfig& config) {
  ReadLatentAttention(fields, config);
  config.rope.interleaved = fields.Bool("rope_interleave", true);
  ReadExperts(fields, config, "num_experts_per_tok",
              {"n_routed_experts", "num_local_experts"});
  if (fields.String("topk_method", "noaux_tc") != "noaux_tc") {
    fields.Refuse("topk_method", "only noaux_tc is");
  }
  if (fields.String("scoring_func", "sigmoid") != "sigmoid") {
    fields.Refuse("scoring_func", "only sigmoid is");
  }
  ReadSigmoidRouter(fields, config,
                    {.scaling = 2.5, .groups = 8, .groups_kept = 4});
  ReadLeadingDense(fields, config);
  ReadPlainShared(fields, config, "n_shared_experts");
  config.next_token_layers =
      fields.Int("num_nextn_predict_layers", kLayerRange, 1);
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
  config.router.score = Score::kSigmoid;
  config.router.renormalise = true;
  config.choice_bias = true;
  ReadAllMoe(fields, config);
  config.next_token_layers = fields.Int("num_mtp_modules", kLayerRange, 0);
}

void ReadErnie(ConfigFields& fields, ModelConfig& config) {
  ReadHeads(fields, config);
  config.rope.interleaved = true;
  config.qkv_bias = fields.Bool("use_bias", false);
  config.o_bias = config.qkv_bias;
  config.mlp_bias = config.qkv_bias;
  config.head_bias = config.qkv_bias;
  ReadExperts(fields, config, "moe_k", {"moe_num_experts"});
  config.choice_bias = true;
  config.router.renormalise = true;
  // Experts that the choice bias alone brings may have less than that.
  config.router.norm_least = static_cast<float>(
      fields.Number("moe_norm_min", {.least = -1, .most = 1}, 1e-12));
  const int32_t layers = static_cast<int32_t>(config.layers.size());
  const int32_t first = fields.Int("moe_layer_start_index", kLayerRange, 1);
  const int32_t step = fields.Int("moe_layer_interval", {.least = 1}, 1);
  int32_t last = layers - 1;
  if (fields.Number("moe_layer_end_index", {.least = -2, .most = 4096}, -1) >=
      0) {
    last = fields.Int("moe_layer_end_index", kLayerRange);
  }
  for (int32_t l = 0; l < layers; ++l) {
    config.layers[l].moe = (l + 1) % step == 0 && l >= first && l <= last;
  }
  ReadWidths(fields, config, "moe_intermediate_size", "intermediate_size");
  ReadPlainShared(fields, config, "moe_num_shared_experts");
}

constexpr Family kFamilies[] = {
    {"deepseek_v2", kCommonNames, ReadDeepseekV2},
    {"deepseek_v3", kCommonNames, ReadDeepseekV3},
    {"dots1", kCommonNames, ReadDots1},
    {"ernie4_5_moe",
     ErnieNames(),
     ReadErnie,
     {.norm_eps = 1e-5, .rope_theta = 500000, .tied_head = true}},
    {"flex_olmo", FlexOlmoNames(), ReadFlexOlmo, {.rope_theta = 500000}},
    {"glm4_moe", kCommonNames, ReadGlm4Moe, {.norm_eps = 1e-5}},
    {"gpt_oss",
     GptOssNames(),
     ReadGptOss,
     {.norm_eps = 1e-5, .rope_theta = 150000}},
    {"granitemoe", GraniteMoeNames(), ReadGraniteMoe},
    {"llama", kCommonNames, ReadLlama},
    {"minimax_m2", MixtralNames(), ReadMinimaxM2, {.rope_theta = 5e6}},
    {"mixtral",
     MixtralNames(),
     ReadMixtral,
     {.norm_eps = 1e-5, .rope_theta = 1e6}},
    {"olmoe", kCommonNames, ReadOlmoe, {.norm_eps = 1e-5}},
    {"phimoe",
     MixtralNames(),
     ReadPhimoe,
     {.norm_eps = 1e-5, .rope_theta = 1e6}},
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
