#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/route.h"
#include "nlohmann/json_fwd.hpp"

namespace bullpen {

// One decoder layer's switches.
struct LayerConfig {
  bool moe = false;          // false: one expert that every token uses
  int32_t ffn_inner = 0;     // width of an expert, or of the dense FFN
};

enum class QkNorm : uint8_t { kNone, kPerHead };

// The generic decoder, driven by switches read from the checkpoint
// (engine/model/families.cc maps each model_type to them).
struct ModelConfig {
  std::string model_type;
  int32_t vocab = 0;
  int32_t dim = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t rotary_dim = 0;
  bool rope_interleaved = false;
  double rope_theta = 10000;
  double norm_eps = 1e-6;
  QkNorm qk_norm = QkNorm::kNone;
  bool qkv_bias = false;
  bool tied_head = false;
  int32_t context_length = 0;     // max_position_embeddings
  int32_t experts = 0;            // per MoE layer; 0 = dense model
  int32_t experts_per_token = 0;
  kernels::RouterRule router;
  std::vector<LayerConfig> layers;

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

// InvalidArgument names the key, its value and what is allowed; an unknown
// model_type lists those supported. Every number is range-checked: nothing
// later multiplies an unchecked dimension.
absl::StatusOr<ModelConfig> ParseModelConfig(const nlohmann::json& config);

// `generation` may be null (no file).
absl::StatusOr<GenerationDefaults> ParseGenerationDefaults(
    const nlohmann::json& config, const nlohmann::json& generation);

}  // namespace bullpen
