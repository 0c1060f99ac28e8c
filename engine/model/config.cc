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

constexpr NumberRange kPositive{.least = 0, .most = 1e12};

void ReadYarn(ConfigFields& rope, RopeConfig& config) {
  config.beta_fast = rope.Number("beta_fast", kPositive, 32);
  config.beta_slow = rope.Number("beta_slow", kPositive, 1);
  config.truncate = rope.Bool("truncate", true);
  config.mscale = rope.Number("mscale", kPositive, 0);
  config.mscale_all_dim = rope.Number("mscale_all_dim", kPositive, 0);
  config.attention_factor = rope.Number("attention_factor", kPositive, 0);
}

// The keys of one rope_scaling or rope_parameters object.
void ReadRopeObject(ConfigFields& rope, RopeConfig& config) {
  for (const auto& [key, value] : rope.object().items()) {
    if (value.is_object()) {
      rope.Refuse(key.c_str(), "one rotation for all layers is");
      return;
    }
  }
  const char* type_key = rope.Has("rope_type") ? "rope_type" : "type";
  const std::string type = rope.String(type_key, "default");
  config.theta = rope.Number("rope_theta", kTheta, config.theta);
  if (type == "default") return;
  config.factor = rope.Number("factor", kPositive, 1);
  config.original_context = rope.Number("original_max_position_embeddings",
                                        kPositive, config.original_context);
  if (type == "linear") {
    config.scaling = RopeScaling::kLinear;
  } else if (type == "yarn") {
    config.scaling = RopeScaling::kYarn;
    ReadYarn(rope, config);
  } else if (type == "llama3") {
    config.scaling = RopeScaling::kLlama3;
    config.low_freq_factor = rope.Number("low_freq_factor", kPositive, 1);
    config.high_freq_factor = rope.Number("high_freq_factor", kPositive, 4);
    if (config.high_freq_factor <= config.low_freq_factor) {
      rope.Refuse("high_freq_factor", "more than low_freq_factor is");
    }
  } else {
    rope.Refuse(type_key, "default, linear, yarn and llama3 are");
  }
}

// rope_theta and rope_scaling at the top, as released, or in rope_parameters,
// as transformers 5 writes them.
void ReadRope(ConfigFields& fields, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  rope.theta = fields.Number("rope_theta", kTheta, 10000);
  rope.original_context = config.context_length;
  const double theta = rope.theta;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!fields.Has(key)) continue;
    ConfigFields object = fields.Object(key);
    ReadRopeObject(object, rope);
    if (fields.Has("rope_theta") && rope.theta != theta) {
      object.Refuse("rope_theta",
                    absl::StrCat("rope_theta of the file is ", theta));
    }
    fields.Fail(object.status());
  }
}

// Every layer's window, from layer_types where the file has them. Elsewhere
// sliding_window counts for all layers, unless use_sliding_window says no; a
// window of 0 or null is no window.
void ReadWindows(ConfigFields& fields, ModelConfig& config) {
  constexpr IntRange kWindow{.least = 0, .most = 1 << 28};
  const int32_t window = fields.Int("sliding_window", kWindow, 0);
  const bool listed = fields.Has("layer_types");
  const json types = listed ? fields.object()["layer_types"] : json::array();
  if (listed && types.size() != config.layers.size()) {
    fields.Refuse("layer_types", "a list with one entry for each layer is");
    return;
  }
  const bool used = fields.Bool("use_sliding_window", true);
  const int32_t first = fields.Has("use_sliding_window")
                            ? fields.Int("max_window_layers", kWindow, 0)
                            : 0;
  for (size_t l = 0; l < config.layers.size(); ++l) {
    if (!listed) {
      const bool slides = used && static_cast<int32_t>(l) >= first;
      config.layers[l].window = slides ? window : 0;
    } else if (types[l] == "sliding_attention") {
      config.layers[l].window = window;
    } else if (types[l] != "full_attention") {
      fields.Refuse("layer_types",
                    "'full_attention' and 'sliding_attention' are");
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
  ReadWindows(fields, config);
}

// What must hold between the numbers of any family.
void CheckTogether(ConfigFields& fields, const ModelConfig& config) {
  if (config.heads % config.kv_heads != 0) {
    fields.Refuse(
        "num_key_value_heads",
        absl::StrCat("it must divide num_attention_heads = ", config.heads));
  }
  const int32_t rotary = config.rope.rotary_dim;
  if (rotary < 2 || rotary % 2 != 0 || rotary > config.head_dim) {
    fields.Refuse("head_dim",
                  absl::StrCat("the rotated part must be even and fit a head: ",
                               rotary, " of ", config.head_dim, " is not"));
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
