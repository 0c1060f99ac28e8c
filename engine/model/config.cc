#include "engine/model/config.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/status.h"
#include "base/strings.h"
#include "engine/experts/limits.h"
#include "engine/model/config_fields.h"
#include "engine/model/families.h"
#include "nlohmann/json.hpp"

namespace bullpen {
namespace {

using nlohmann::json;

constexpr NumberRange kTheta{.least = 0, .most = 1e12};

constexpr NumberRange kPositive{.least = 0, .most = 1e12};

// Without it the stretch would be another one, and nobody told.
double Required(ConfigFields& rope, const char* key) {
  if (!rope.Has(key)) rope.Refuse(key, "this rope_type needs a number");
  return rope.Number(key, kPositive, 1);
}

void ReadYarn(ConfigFields& rope, RopeConfig& config) {
  config.beta_fast = rope.Number("beta_fast", kPositive, 32);
  config.beta_slow = rope.Number("beta_slow", kPositive, 1);
  config.truncate = rope.Bool("truncate", true);
  config.mscale = rope.Number("mscale", kPositive, 0);
  config.mscale_all_dim = rope.Number("mscale_all_dim", kPositive, 0);
  config.attention_factor = rope.Number("attention_factor", kPositive, 0);
}

void ReadLlama3(ConfigFields& rope, RopeConfig& config) {
  config.low_freq_factor = Required(rope, "low_freq_factor");
  config.high_freq_factor = Required(rope, "high_freq_factor");
  if (config.high_freq_factor <= config.low_freq_factor) {
    rope.Refuse("high_freq_factor", "more than low_freq_factor is");
  }
}

void ReadLongRope(ConfigFields& rope, RopeConfig& config) {
  config.short_divisors = rope.Numbers("short_factor", kPositive);
  config.long_divisors = rope.Numbers("long_factor", kPositive);
  const double growth =
      config.factor <= 1 || config.original_context <= 1
          ? 1
          : std::sqrt(1 + std::log(config.factor) /
                              std::log(config.original_context));
  config.short_mscale = rope.Number("attention_factor", kPositive, growth);
  config.long_mscale = config.short_mscale;
}

// The keys of one rope_scaling or rope_parameters object, in a config of so
// many positions.
void ReadRopeObject(ConfigFields& rope, double context, RopeConfig& config) {
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
  config.original_context = rope.Number("original_max_position_embeddings",
                                        kPositive, config.original_context);
  const auto growth = [&] {
    return rope.Number("factor", kPositive, context / config.original_context);
  };
  if (type == "linear") {
    config.scaling = RopeScaling::kLinear;
    config.factor = Required(rope, "factor");
  } else if (type == "yarn") {
    config.scaling = RopeScaling::kYarn;
    config.factor = growth();
    ReadYarn(rope, config);
  } else if (type == "llama3") {
    config.scaling = RopeScaling::kLlama3;
    config.factor = Required(rope, "factor");
    ReadLlama3(rope, config);
  } else if (type == "longrope") {
    config.scaling = RopeScaling::kLong;
    config.factor = growth();
    ReadLongRope(rope, config);
  } else {
    rope.Refuse(type_key, "default, linear, yarn, llama3 and longrope are");
  }
}

// rope_theta and rope_scaling at the top, as released, or in rope_parameters,
// as transformers 5 writes them.
void ReadRope(ConfigFields& fields, double default_theta, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  rope.theta = fields.Number("rope_theta", kTheta, default_theta);
  const char* original = "original_max_position_embeddings";
  const double theta = rope.theta;
  rope.original_context =
      fields.Number(original, kPositive, config.context_length);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!fields.Has(key)) continue;
    ConfigFields object = fields.Object(key);
    ReadRopeObject(object, config.context_length, rope);
    if (rope.scaling == RopeScaling::kLlama3 && !fields.Has(original)) {
      Required(object, original);
    }
    if (fields.Has("rope_theta") && rope.theta != theta) {
      object.Refuse("rope_theta",
                    absl::StrCat("rope_theta of the file is ", theta));
    }
    if (fields.Has(original) && rope.scaling != RopeScaling::kNone &&
        rope.original_context != fields.Number(original, kPositive, 1)) {
      object.Refuse(original, absl::StrCat(original, " of the file differs"));
    }
    fields.Fail(object.status());
  }
}

// Families that know windows read layer_types again; the others have none.
void CheckLayerTypes(ConfigFields& fields) {
  if (!fields.Has("layer_types")) return;
  for (const json& type : fields.object()["layer_types"]) {
    if (type != "full_attention" && type != "sliding_attention") {
      fields.Refuse("layer_types",
                    "'full_attention' and 'sliding_attention' are");
      return;
    }
  }
}

// Weights that are stored in blocks are told by their tensors.
void CheckQuantization(ConfigFields& fields) {
  if (!fields.Has("quantization_config")) return;
  ConfigFields quantization = fields.Object("quantization_config");
  const std::string method = quantization.String("quant_method", "unknown");
  if (method != "mxfp4" && method != "fp8") {
    quantization.Refuse("quant_method",
                        "mxfp4 and fp8 are, beside F32, F16 and BF16 weights");
  }
  fields.Fail(quantization.status());
}

void ReadCommon(ConfigFields& fields, const FamilyDefaults& defaults,
                ModelConfig& config) {
  config.vocab = fields.Int("vocab_size", {.least = 1, .most = 1 << 24});
  config.dim = fields.Int("hidden_size", {.least = 1, .most = 1 << 20});
  config.layers.resize(static_cast<size_t>(
      fields.Int("num_hidden_layers", {.least = 1, .most = kMaxLayers})));
  config.heads = fields.Int("num_attention_heads", {.least = 1, .most = 4096});
  config.kv_heads = fields.Int("num_key_value_heads",
                               {.least = 1, .most = 4096}, config.heads);
  config.norm_eps =
      fields.Number("rms_norm_eps", {.most = 1}, defaults.norm_eps);
  config.tied_head = fields.Bool("tie_word_embeddings", defaults.tied_head);
  config.context_length =
      fields.Int("max_position_embeddings", {.least = 1, .most = 1 << 28});
  if (fields.String("hidden_act", "silu") != "silu") {
    fields.Refuse("hidden_act", "only 'silu' is");
  }
  CheckQuantization(fields);
  CheckLayerTypes(fields);
  ReadRope(fields, defaults.rope_theta, config);
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
  const size_t frequencies = static_cast<size_t>(rotary) / 2;
  if (config.rope.scaling == RopeScaling::kLong &&
      (config.rope.short_divisors.size() != frequencies ||
       config.rope.long_divisors.size() != frequencies)) {
    fields.Fail(absl::InvalidArgumentError(absl::StrCat(
        "config.json: short_factor and long_factor of longrope have ",
        config.rope.short_divisors.size(), " and ",
        config.rope.long_divisors.size(), " numbers, but a head has ",
        frequencies, " frequencies")));
  }
}

// The decoder of a wrapper may be called as its family, with _text behind.
absl::StatusOr<const Family*> FamilyOf(const std::string& model_type) {
  constexpr std::string_view kText = "_text";
  absl::StatusOr<const Family*> family = FindFamily(model_type);
  if (family.ok() || !model_type.ends_with(kText)) return family;
  const std::string base =
      model_type.substr(0, model_type.size() - kText.size());
  absl::StatusOr<const Family*> shorter = FindFamily(base);
  return shorter.ok() ? shorter : family;
}

}  // namespace

json DecoderPart(const json& config) {
  if (!config.is_object() || !config.contains("text_config") ||
      !config["text_config"].is_object()) {
    return config;
  }
  json merged = config;
  merged.erase("text_config");
  for (const auto& [key, value] : config["text_config"].items()) {
    merged[key] = value;
  }
  return merged;
}

absl::StatusOr<ModelConfig> ParseModelConfig(const json& config) {
  const json decoder = DecoderPart(config);
  ConfigFields fields(decoder, "config.json");
  ModelConfig parsed;
  const std::string model_type = fields.String("model_type");
  RETURN_IF_ERROR(fields.status());
  absl::StatusOr<const Family*> family = FamilyOf(model_type);
  if (!family.ok()) {
    return absl::Status(
        family.status().code(),
        absl::StrCat("config.json: ", family.status().message()));
  }
  parsed.model_type = (*family)->model_type;
  ReadCommon(fields, (*family)->defaults, parsed);
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
  const json decoder = DecoderPart(config);
  ConfigFields model(decoder, "config.json");
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
