#include "engine/model/family_fields.h"

#include <cmath>
#include <string>

#include "base/strings.h"

namespace bullpen {
namespace {

// A key that is there with the value null, where absence means something else.
bool IsNull(const ConfigFields& fields, const char* key) {
  return fields.object().contains(key) && !fields.Has(key);
}

bool IsWindowed(const WindowRule& rule, int32_t layer, int32_t max_layers) {
  switch (rule.layers) {
    case WindowedLayers::kAll:
      return true;
    case WindowedLayers::kEven:
      return layer % 2 == 0;
    case WindowedLayers::kFromMaxWindowLayers:
      return layer >= max_layers;
    case WindowedLayers::kEvenBelowMaxWindowLayers:
      return layer % 2 == 0 && layer < max_layers;
  }
  return false;
}

int32_t ReadExpertCount(ConfigFields& fields,
                        std::initializer_list<const char*> keys) {
  const char* first = *keys.begin();
  for (const char* key : keys) {
    if (fields.Has(key)) {
      first = key;
      break;
    }
  }
  const int32_t experts = fields.Int(first, kExpertRange);
  for (const char* key : keys) {
    if (fields.Int(key, kExpertRange, experts) != experts) {
      fields.Refuse(key, absl::StrCat(first, " says otherwise"));
    }
  }
  return experts;
}

}  // namespace

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

void ReadHeads(ConfigFields& fields, ModelConfig& config,
               const HeadRule& rule) {
  const int32_t dim =
      rule.default_dim > 0 ? rule.default_dim : config.dim / config.heads;
  config.head_dim = fields.Int("head_dim", {.least = 2, .most = 1 << 14}, dim);
  config.value_dim = config.head_dim;
  config.score_scale = 1 / std::sqrt(config.head_dim);
  if (!rule.rotary_share.has_value() && RotaryShare(fields, 1) != 1) {
    fields.Refuse("partial_rotary_factor", "only 1 is");
  }
  config.rope.rotary_dim =
      static_cast<int32_t>(config.head_dim * rule.rotary_share.value_or(1));
}

void ReadAttentionBias(ConfigFields& fields, ModelConfig& config,
                       bool otherwise) {
  config.qkv_bias = fields.Bool("attention_bias", otherwise);
  config.o_bias = config.qkv_bias;
}

void ReadLatentAttention(ConfigFields& fields, ModelConfig& config) {
  LatentAttention& latent = config.latent;
  constexpr IntRange kDim{.least = 1, .most = 1 << 14};
  latent.kv_rank = fields.Int("kv_lora_rank", kDim);
  latent.q_rank = fields.Int("q_lora_rank", kDim, 0);
  latent.nope_dim = fields.Int("qk_nope_head_dim", kDim);
  latent.rope_dim = fields.Int("qk_rope_head_dim", kDim);
  latent.value_dim = fields.Int("v_head_dim", kDim);
  // All heads read one key, and as value the latent in it.
  config.kv_heads = 1;
  config.head_dim = latent.kv_rank + latent.rope_dim;
  config.value_dim = latent.kv_rank;
  config.rope.rotary_dim = latent.rope_dim;
  config.score_scale = 1 / std::sqrt(latent.nope_dim + latent.rope_dim);
  const RopeConfig& rope = config.rope;
  if (rope.scaling == RopeScaling::kYarn && rope.mscale_all_dim > 0) {
    const double mscale = YarnMscale(rope.factor, rope.mscale_all_dim);
    config.score_scale *= mscale * mscale;
  }
  ReadAttentionBias(fields, config);
}

void ReadWindows(ConfigFields& fields, ModelConfig& config,
                 const WindowRule& rule) {
  constexpr IntRange kWindow{.least = 0, .most = 1 << 28};
  int32_t window =
      IsNull(fields, "sliding_window")
          ? 0
          : fields.Int("sliding_window", kWindow, rule.default_window);
  if (rule.switched && !fields.Bool("use_sliding_window", false)) window = 0;
  const int32_t max_layers =
      fields.Int("max_window_layers", kWindow, rule.default_layers);
  const bool listed = fields.Has("layer_types");
  const nlohmann::json types =
      listed ? fields.object()["layer_types"] : nlohmann::json::array();
  if (listed && types.size() != config.layers.size()) {
    fields.Refuse("layer_types", "a list with one entry for each layer is");
    return;
  }
  for (size_t l = 0; l < config.layers.size(); ++l) {
    if (!listed) {
      const bool windowed =
          IsWindowed(rule, static_cast<int32_t>(l), max_layers);
      config.layers[l].window = windowed ? window : 0;
    } else if (types[l] == "sliding_attention") {
      config.layers[l].window = window;
    } else if (types[l] != "full_attention") {
      fields.Refuse("layer_types",
                    "'full_attention' and 'sliding_attention' are");
      return;
    }
  }
}

void ReadExperts(ConfigFields& fields, ModelConfig& config, const char* k_key,
                 std::initializer_list<const char*> count_keys) {
  config.experts = ReadExpertCount(fields, count_keys);
  config.experts_per_token = fields.Int(k_key, {.least = 1, .most = 32});
  if (config.experts_per_token > config.experts) {
    fields.Refuse(k_key,
                  absl::StrCat("there are ", config.experts, " experts"));
  }
}

void ReadWidths(ConfigFields& fields, ModelConfig& config,
                const char* expert_key, const char* dense_key) {
  for (LayerConfig& layer : config.layers) {
    layer.ffn_inner =
        fields.Int(layer.moe ? expert_key : dense_key, kWidthRange);
  }
}

void ReadAllMoe(ConfigFields& fields, ModelConfig& config) {
  for (LayerConfig& layer : config.layers) layer.moe = true;
  ReadWidths(fields, config, "intermediate_size", "intermediate_size");
}

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
  const int32_t dense = fields.Int("first_k_dense_replace", kLayerRange, 0);
  if (fields.Int("moe_layer_freq", {.least = 1}, 1) != 1) {
    fields.Refuse("moe_layer_freq", "only 1 is");
  }
  for (size_t l = 0; l < config.layers.size(); ++l) {
    config.layers[l].moe = static_cast<int32_t>(l) >= dense;
  }
  ReadWidths(fields, config, "moe_intermediate_size", "intermediate_size");
}

void ReadPlainShared(ConfigFields& fields, ModelConfig& config,
                     const char* key) {
  const int32_t shared = fields.Int(key, {.least = 0, .most = 64}, 0);
  if (shared == 0) return;
  config.shared_expert = SharedExpert::kPlain;
  config.shared_inner =
      shared * fields.Int("moe_intermediate_size", kWidthRange);
}

void ReadGroups(ConfigFields& fields, ModelConfig& config,
                const RouterDefaults& defaults) {
  kernels::RouterRule& router = config.router;
  router.groups = fields.Int("n_group", kExpertRange, defaults.groups);
  router.groups_kept =
      fields.Int("topk_group", kExpertRange, defaults.groups_kept);
  if (router.groups_kept > router.groups ||
      config.experts % router.groups != 0) {
    fields.Refuse("n_group",
                  absl::StrCat("it must divide ", config.experts,
                               " experts and be at least topk_group = ",
                               router.groups_kept));
  } else if (config.experts / router.groups * router.groups_kept <
             config.experts_per_token) {
    fields.Refuse("topk_group",
                  absl::StrCat("so many groups that they hold ",
                               config.experts_per_token, " experts are"));
  }
}

void ReadSigmoidRouter(ConfigFields& fields, ModelConfig& config,
                       const RouterDefaults& defaults) {
  kernels::RouterRule& router = config.router;
  router.score = kernels::RouterRule::Score::kSigmoid;
  router.group_score_top2 = true;
  config.choice_bias = true;
  ReadGroups(fields, config, defaults);
  router.renormalise = fields.Bool("norm_topk_prob", defaults.renormalise);
  router.norm_eps = 1e-20f;
  router.scaling = static_cast<float>(
      fields.Number("routed_scaling_factor", kScaleRange, defaults.scaling));
}

}  // namespace bullpen
