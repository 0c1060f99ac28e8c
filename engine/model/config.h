#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/rope.h"
#include "kernels/grouped_ffn.h"
#include "kernels/route.h"
#include "nlohmann/json_fwd.hpp"

namespace bullpen {

// One decoder layer's switches.
struct LayerConfig {
  bool moe = false;       // false: one expert that every token uses
  int32_t ffn_inner = 0;  // width of an expert, or of the dense FFN
  int32_t window = 0;     // tokens that attention sees; 0 = all
};

// Norms of q and k after their projection: one weight for each head's
// dimension, or one norm over all heads together.
enum class QkNorm : uint8_t { kNone, kPerHead, kWhole };

// Where a block's norm stands: before it, or after it (OLMo 2).
enum class NormPlace : uint8_t { kBefore, kAfter };

// RMS norm, or layer norm with a bias.
enum class NormKind : uint8_t { kRms, kLayer };

// The FFN that every token uses beside its chosen experts.
enum class SharedExpert : uint8_t { kNone, kPlain, kSigmoidGated };

// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434) in its absorbed
// form: the cache holds one key per token, the normed latent with the rotated
// part behind it, and the latent is the value too; each head's query is brought
// into the latent space, and its output out of it.
struct LatentAttention {
  int32_t kv_rank = 0;     // width of the latent; 0 = attention is not latent
  int32_t q_rank = 0;      // of the queries' own latent; 0 = they have none
  int32_t nope_dim = 0;    // of a head, not rotated
  int32_t rope_dim = 0;    // of a head, rotated; keys share one
  int32_t value_dim = 0;   // of a head
  double norm_eps = 1e-6;  // of the latents
};

// The generic decoder, driven by switches read from the checkpoint
// (engine/model/families.cc maps each model_type to them).
struct ModelConfig {
  std::string model_type;
  int32_t vocab = 0;
  int32_t dim = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;   // of queries and keys in the cache
  int32_t value_dim = 0;  // of values in the cache
  LatentAttention latent;
  RopeConfig rope;
  double score_scale = 0;  // of attention
  double clip_qkv = 0;     // q, k and v are cut to +- it; 0 = no
  bool sinks = false;      // a logit of each head that attends to nothing
  double norm_eps = 1e-6;
  NormKind norm_kind = NormKind::kRms;
  NormPlace norm_place = NormPlace::kBefore;
  QkNorm qk_norm = QkNorm::kNone;
  bool qkv_bias = false;
  bool o_bias = false;
  bool tied_head = false;
  bool head_bias = false;
  // Granite's multipliers.
  double embed_scale = 1;
  double residual_scale = 1;  // of what a block adds
  double logit_scale = 1;
  int32_t next_token_layers = 0;  // in the checkpoint, not used here
  int32_t context_length = 0;     // max_position_embeddings
  int32_t experts = 0;            // per MoE layer; 0 = dense model
  int32_t experts_per_token = 0;
  kernels::RouterRule router;
  bool router_bias = false;
  bool choice_bias = false;  // added to the scores for the choice only
  kernels::Activation activation;
  bool expert_bias = false;  // of chosen experts
  bool mlp_bias = false;     // of dense and shared ones
  SharedExpert shared_expert = SharedExpert::kNone;
  int32_t shared_inner = 0;
  std::vector<LayerConfig> layers;

  bool is_latent() const { return latent.kv_rank > 0; }
  // What the output projection takes.
  int32_t attended_dim() const {
    return heads * (is_latent() ? latent.value_dim : head_dim);
  }
  int32_t experts_in(int layer) const {
    return layers[layer].moe ? experts : 1;
  }
  int32_t k_in(int layer) const {
    return layers[layer].moe ? experts_per_token : 1;
  }
};

// What generation_config.json (and config.json) say about sampling and ends.
// Unset = the file does not say.
struct GenerationDefaults {
  std::vector<int32_t> eos_ids;
  std::optional<int32_t> bos_id;
  std::optional<bool> do_sample;
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
};

// The keys of a config.json that count for the decoder. A multimodal wrapper
// keeps them in text_config, and may keep some that count for both beside it.
nlohmann::json DecoderPart(const nlohmann::json& config);

// InvalidArgument names the key, its value and what is allowed; an unknown
// model_type lists those supported. Every number is range-checked: nothing
// later multiplies an unchecked dimension.
absl::StatusOr<ModelConfig> ParseModelConfig(const nlohmann::json& config);

// `generation` may be null (no file).
absl::StatusOr<GenerationDefaults> ParseGenerationDefaults(
    const nlohmann::json& config, const nlohmann::json& generation);

}  // namespace bullpen
