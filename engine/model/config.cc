#include "engine/model/config.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/status.h"
#include "base/strings.h"
#include "engine/model/config_fields.h"
#include "engine/model/families.h"
#include "nlohmann/json.hpp"

namespace bullpen {
namespace {

using nlohmann::json;

constexpr NumberRange kTheta{.least = 0, .most = 1e12};

// Refuses a rotation that is not the plain one, under whichever key it stands.
void CheckPlainRope(ConfigFields& rope, ConfigFields& fields) {
  for (const char* key : {"rope_type", "type"}) {
    if (rope.String(key, "default") != "default") {
      rope.Refuse(key, "only 'default' is");
    }
  }
  if (rope.Number("partial_rotary_factor", {.most = 1}, 1) != 1) {
    rope.Refuse("partial_rotary_factor", "only 1 is");
  }
  for (const auto& [key, value] : rope.object().items()) {
    if (value.is_object()) {
      rope.Refuse(key.c_str(), "one rotation for all layers is");
    }
  }
  fields.Fail(rope.status());
}

// rope_theta at the top, as released, or in rope_parameters, as transformers 5
// writes it.
void ReadRope(ConfigFields& fields, ModelConfig& config) {
  config.rope_theta = fields.Number("rope_theta", kTheta, 10000);
  if (fields.Number("partial_rotary_factor", {.most = 1}, 1) != 1) {
    fields.Refuse("partial_rotary_factor", "only 1 is");
  }
  if (fields.Has("rope_scaling")) {
    ConfigFields rope = fields.Object("rope_scaling");
    CheckPlainRope(rope, fields);
  }
  if (!fields.Has("rope_parameters")) return;
  ConfigFields rope = fields.Object("rope_parameters");
  const double theta = rope.Number("rope_theta", kTheta, config.rope_theta);
  if (fields.Has("rope_theta") && theta != config.rope_theta) {
    rope.Refuse("rope_theta",
                absl::StrCat("rope_theta of the file is ", config.rope_theta));
  }
  config.rope_theta = theta;
  CheckPlainRope(rope, fields);
}

void RefuseSlidingWindows(ConfigFields& fields) {
  if (fields.Bool("use_sliding_window", false)) {
    fields.Refuse("use_sliding_window", "only false is");
  }
  if (!fields.Has("layer_types")) return;
  for (const json& type : fields.object()["layer_types"]) {
    if (type != "full_attention") {
      fields.Refuse("layer_types", "only 'full_attention' is");
      return;
    }
  }
}

void ReadCommon(ConfigFields& fields, ModelConfig& config) {
  config.vocab = fields.Int("vocab_size", {.least = 1, .most = 1 << 24});
  config.dim = fields.Int("hidden_size", {.least = 1, .most = 1 << 20});
  config.layers.resize(static_cast<size_t>(
      fields.Int("num_hidden_layers", {.least = 1, .most = 4096})));
  config.heads = fields.Int("num_attention_heads", {.least = 1, .most = 4096});
  config.kv_heads = fields.Int("num_key_value_heads",
                               {.least = 1, .most = 4096}, config.heads);
  config.norm_eps = fields.Number("rms_norm_eps", {.most = 1}, 1e-6);
  config.tied_head = fields.Bool("tie_word_embeddings", false);
  config.context_length =
      fields.Int("max_position_embeddings", {.least = 1, .most = 1 << 28});
  if (fields.String("hidden_act", "silu") != "silu") {
    fields.Refuse("hidden_act", "only 'silu' is");
  }
  if (fields.Has("quantization_config")) {
    fields.Refuse("quantization_config", "only F32, F16 and BF16 weights are");
  }
  ReadRope(fields, config);
  RefuseSlidingWindows(fields);
}

// What must hold between the numbers of any family.
void CheckTogether(ConfigFields& fields, const ModelConfig& config) {
  if (config.heads % config.kv_heads != 0) {
    fields.Refuse(
        "num_key_value_heads",
        absl::StrCat("it must divide num_attention_heads = ", config.heads));
  }
  if (config.head_dim < 2 || config.rotary_dim % 2 != 0) {
    fields.Refuse(
        "head_dim",
        absl::StrCat("it must be even to be rotated; it is ", config.head_dim));
  }
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(const json& config) {
  ConfigFields fields(config, "config.json");
  ModelConfig parsed;
  parsed.model_type = fields.String("model_type");
  RETURN_IF_ERROR(fields.status());
  absl::StatusOr<const Family*> family = FindFamily(parsed.model_type);
  if (!family.ok()) {
    return absl::Status(
        family.status().code(),
        absl::StrCat("config.json: ", family.status().message()));
  }
  ReadCommon(fields, parsed);
  RETURN_IF_ERROR(fields.status());
  (*family)->read(fields, parsed);
  RETURN_IF_ERROR(fields.status());
  CheckTogether(fields, parsed);
  RETURN_IF_ERROR(fields.status());
  return parsed;
}

absl::StatusOr<GenerationDefaults> ParseGenerationDefaults(
    const json& config, const json& generation) {
  static const json kNone = json::object();
  ConfigFields model(config, "config.json");
  ConfigFields given(generation.is_null() ? kNone : generation,
                     "generation_config.json");
  constexpr IntRange kId{.least = 0, .most = (1 << 24) - 1};
  // What generation_config.json does not say, config.json may.
  ConfigFields& eos = given.Has("eos_token_id") ? given : model;
  ConfigFields& bos = given.Has("bos_token_id") ? given : model;

  GenerationDefaults parsed;
  parsed.eos_ids = eos.Ints("eos_token_id", kId);
  if (bos.Has("bos_token_id")) parsed.bos_id = bos.Int("bos_token_id", kId);
  if (given.Has("do_sample")) parsed.do_sample = given.Bool("do_sample", false);
  if (given.Has("top_k")) {
    parsed.top_k = given.Int("top_k", {.least = 0, .most = 1 << 24});
  }
  const auto number = [&](const char* key, NumberRange range,
                          std::optional<float>& out) {
    if (given.Has(key)) out = static_cast<float>(given.Number(key, range, 1));
  };
  // Ranges exclude their lower end, and these may be 0.
  const double below_zero = -std::numeric_limits<double>::min();
  number("temperature", {.least = below_zero, .most = 100}, parsed.temperature);
  number("top_p", {.most = 1}, parsed.top_p);
  number("min_p", {.least = below_zero, .most = 1}, parsed.min_p);
  number("repetition_penalty", {.most = 100}, parsed.repetition_penalty);
  RETURN_IF_ERROR(model.status());
  RETURN_IF_ERROR(given.status());
  return parsed;
}

}  // namespace bullpen
