#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>

#include "engine/experts/limits.h"
#include "engine/model/config.h"
#include "engine/model/config_fields.h"

// What the config.json of several families says in the same words; each
// function reads some keys into the config, and errors go into the fields.

namespace bullpen {

inline constexpr IntRange kWidthRange{.least = 1, .most = 1 << 20};
inline constexpr IntRange kExpertRange{.least = 1, .most = kMaxExpertsPerLayer};
inline constexpr IntRange kLayerRange{.least = 0, .most = kMaxLayers};
inline constexpr NumberRange kScaleRange{.least = 0, .most = 1e6};

// partial_rotary_factor at the top or in rope_parameters.
double RotaryShare(ConfigFields& fields, double otherwise);

// Grouped queries over heads of one width. A family that rotates only a part
// of it says which share.
struct HeadRule {
  int32_t default_dim = 0;  // 0: dim / heads, which is what q_proj then has
  std::optional<double> rotary_share = {};
};
void ReadHeads(ConfigFields& fields, ModelConfig& config,
               const HeadRule& rule = {});

// attention_bias: of q, k, v and o.
void ReadAttentionBias(ConfigFields& fields, ModelConfig& config,
                       bool otherwise = false);

// Latent attention of DeepSeek-V2 and those after it.
void ReadLatentAttention(ConfigFields& fields, ModelConfig& config);

// Which layers sliding_window counts for where layer_types does not say.
enum class WindowedLayers : uint8_t {
  kAll,
  kEven,
  kFromMaxWindowLayers,
  kEvenBelowMaxWindowLayers
};
struct WindowRule {
  WindowedLayers layers = WindowedLayers::kAll;
  bool switched = false;        // only if use_sliding_window says so
  int32_t default_window = 0;   // 0 = none
  int32_t default_layers = 28;  // of max_window_layers
};
void ReadWindows(ConfigFields& fields, ModelConfig& config,
                 const WindowRule& rule);

// How many experts there are, under any of the keys (the released spelling, or
// the one of transformers 5), and how many are chosen.
void ReadExperts(ConfigFields& fields, ModelConfig& config, const char* k_key,
                 std::initializer_list<const char*> count_keys);

// The widths of the layers whose `moe` is set already.
void ReadWidths(ConfigFields& fields, ModelConfig& config,
                const char* expert_key, const char* dense_key);

// Every layer has experts, of intermediate_size.
void ReadAllMoe(ConfigFields& fields, ModelConfig& config);

// decoder_sparse_step and mlp_only_layers of the Qwen families.
void ReadQwenLayers(ConfigFields& fields, ModelConfig& config);

// first_k_dense_replace, and no other pattern.
void ReadLeadingDense(ConfigFields& fields, ModelConfig& config);

// n_shared_experts is one FFN of so many widths of an expert.
void ReadPlainShared(ConfigFields& fields, ModelConfig& config,
                     const char* key);

struct RouterDefaults {
  bool renormalise = true;
  double scaling = 1;
  int32_t groups = 1;
  int32_t groups_kept = 1;
};
// n_group and topk_group.
void ReadGroups(ConfigFields& fields, ModelConfig& config,
                const RouterDefaults& defaults = {});
// Sigmoid scores, a bias for the choice, groups by their two best: DeepSeek-V3
// and those after it.
void ReadSigmoidRouter(ConfigFields& fields, ModelConfig& config,
                       const RouterDefaults& defaults = {});

}  // namespace bullpen
