#include "engine/model/config.h"

#include <map>
#include <string>

#include "engine/model/config_fields.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/fakes/checkpoint_writer.h"

namespace bullpen {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

json Moe() { return ReadJson("tests/golden/qwen3_moe/config.json"); }
json Dense() { return ReadJson("tests/golden/qwen3/config.json"); }

ModelConfig Parse(const json& config) {
  absl::StatusOr<ModelConfig> parsed = ParseModelConfig(config);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.value_or(ModelConfig());
}

std::string Message(const json& config) {
  const absl::Status status = ParseModelConfig(config).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

TEST(Config, ReadsAMixtureOfExperts) {
  const ModelConfig config = Parse(Moe());
  EXPECT_EQ(config.model_type, "qwen3_moe");
  EXPECT_EQ(config.vocab, 320);
  EXPECT_EQ(config.dim, 64);
  EXPECT_EQ(config.heads, 4);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.rope.rotary_dim, 32);
  EXPECT_FALSE(config.rope.interleaved);
  EXPECT_EQ(config.rope.theta, 1e6);
  EXPECT_EQ(config.norm_eps, 1e-6);
  EXPECT_EQ(config.qk_norm, QkNorm::kPerHead);
  EXPECT_FALSE(config.tied_head);
  EXPECT_EQ(config.context_length, 256);
  EXPECT_EQ(config.experts, 8);
  EXPECT_EQ(config.experts_per_token, 3);
  EXPECT_TRUE(config.router.renormalise);
  ASSERT_EQ(config.layers.size(), 3u);
  for (const LayerConfig& layer : config.layers) {
    EXPECT_TRUE(layer.moe);
    EXPECT_EQ(layer.ffn_inner, 32);
  }
}

TEST(Config, ADenseModelIsOneExpertALayer) {
  const ModelConfig config = Parse(Dense());
  EXPECT_TRUE(config.tied_head);
  EXPECT_EQ(config.experts, 0);
  EXPECT_EQ(config.experts_in(0), 1);
  EXPECT_EQ(config.k_in(0), 1);
  EXPECT_EQ(config.layers[2].ffn_inner, 96);
}

TEST(Config, BothSpellingsSayTheSame) {
  json released = Moe();
  released.erase("rope_parameters");
  released["rope_theta"] = 1000000;
  released["rope_scaling"] = nullptr;
  released["num_experts"] = 8;
  released.erase("num_local_experts");
  released["torch_dtype"] = "bfloat16";
  const ModelConfig config = Parse(released);
  EXPECT_EQ(config.rope.theta, 1e6);
  EXPECT_EQ(config.experts, 8);
}

// With all the keys that nobody here needs; nothing of them may be refused.
TEST(Config, WhatHubsHaveIsRead) {
  const auto published = ReadJsonFile("tests/golden/published_configs.json",
                                      absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(published.ok()) << published.status();
  // The name, and layers with experts * experts of one.
  const std::map<std::string, int> experts = {
      {"DeepSeek-V2-Lite", 26 * 64},
      {"DeepSeek-V3", 58 * 256},
      {"ERNIE-4.5-21B-A3B", 27 * 64},
      {"GLM-4.5-Air", 45 * 128},
      {"Granite-3.0-3B-A800M", 32 * 40},
      {"Llama-2-7B", 0},
      {"Llama-3.1-8B", 0},
      {"MiniMax-M2", 62 * 256},
      {"Mixtral-8x7B", 32 * 8},
      {"OLMoE-1B-7B", 16 * 64},
      {"Phi-3.5-MoE", 32 * 16},
      {"Qwen1.5-MoE-A2.7B", 24 * 60},
      {"Qwen3-30B-A3B", 48 * 128},
      {"Qwen3-30B-A3B with YaRN", 48 * 128},
      {"Qwen3-8B", 0},
      {"dots.llm1", 61 * 128},
      {"gpt-oss-20b", 24 * 32}};
  EXPECT_EQ(published->size(), experts.size());
  for (const auto& [name, json] : published->items()) {
    const absl::StatusOr<ModelConfig> config = ParseModelConfig(json);
    ASSERT_TRUE(config.ok()) << name << ": " << config.status();
    int found = 0;
    for (const LayerConfig& layer : config->layers) {
      found += layer.moe ? config->experts : 0;
    }
    EXPECT_EQ(found, experts.at(name)) << name;
  }
}

TEST(Config, AbsentKeysHaveTheFamilysDefaults) {
  json config = Moe();
  for (const char* key :
       {"head_dim", "num_key_value_heads", "norm_topk_prob", "rms_norm_eps",
        "rope_parameters", "decoder_sparse_step", "mlp_only_layers"}) {
    config.erase(key);
  }
  const ModelConfig parsed = Parse(config);
  EXPECT_EQ(parsed.head_dim, 16);
  EXPECT_EQ(parsed.kv_heads, 4);
  EXPECT_FALSE(parsed.router.renormalise);
  EXPECT_EQ(parsed.norm_eps, 1e-6);
  EXPECT_EQ(parsed.rope.theta, 10000);
  json dense = Dense();
  dense.erase("head_dim");
  EXPECT_EQ(Parse(dense).head_dim, 128);
}

json Published(const char* name) {
  return ReadJson("tests/golden/published_configs.json")[name];
}

TEST(Config, AbsentGroupsAreThoseOfDeepseekV3) {
  json config = Published("DeepSeek-V3");
  config.erase("n_group");
  config.erase("topk_group");
  EXPECT_EQ(Parse(config).router.groups, 8);
  EXPECT_EQ(Parse(config).router.groups_kept, 4);
  json other = Published("GLM-4.5-Air");
  other.erase("n_group");
  EXPECT_EQ(Parse(other).router.groups, 1);
}

TEST(Config, AnAbsentRotationOfGptOssIsItsOwnAndNullIsNone) {
  json config = Published("gpt-oss-20b");
  const RopeConfig stated = Parse(config).rope;
  config.erase("rope_scaling");
  const RopeConfig absent = Parse(config).rope;
  EXPECT_EQ(absent.scaling, RopeScaling::kYarn);
  EXPECT_EQ(MakeRope(absent).early.frequency, MakeRope(stated).early.frequency);
  EXPECT_EQ(MakeRope(absent).early.factor, MakeRope(stated).early.factor);
  config["rope_scaling"] = nullptr;
  EXPECT_EQ(Parse(config).rope.scaling, RopeScaling::kNone);
}

TEST(Config, WeightsOfDeepseekV2AreNotRenormalised) {
  json config = Published("DeepSeek-V2-Lite");
  config["norm_topk_prob"] = true;
  EXPECT_THAT(Message(config),
              HasSubstr("norm_topk_prob = true is not supported"));
}

TEST(Config, SparseStepAndMlpOnlyLayersMakeDenseLayers) {
  json config = Moe();
  config["num_hidden_layers"] = 4;
  config["decoder_sparse_step"] = 2;
  config["mlp_only_layers"] = {3};
  const ModelConfig parsed = Parse(config);
  EXPECT_FALSE(parsed.layers[0].moe);
  EXPECT_TRUE(parsed.layers[1].moe);
  EXPECT_FALSE(parsed.layers[2].moe);
  EXPECT_FALSE(parsed.layers[3].moe);
  EXPECT_EQ(parsed.layers[0].ffn_inner, 96);
  EXPECT_EQ(parsed.layers[1].ffn_inner, 32);
  EXPECT_EQ(parsed.experts_in(0), 1);
  EXPECT_EQ(parsed.experts_in(1), 8);
}

TEST(Config, WindowsComeFromTheListOrFromTheSwitch) {
  json config = Moe();
  config["sliding_window"] = 7;
  config["use_sliding_window"] = true;
  config["max_window_layers"] = 1;
  const ModelConfig switched = Parse(config);
  EXPECT_EQ(switched.layers[0].window, 7);
  EXPECT_EQ(switched.layers[1].window, 7);
  json dense = Dense();
  for (const auto& [key, value] : config.items()) {
    if (std::string(key).find("window") != std::string::npos) {
      dense[key] = value;
    }
  }
  dense.erase("layer_types");
  EXPECT_EQ(Parse(dense).layers[0].window, 0);
  EXPECT_EQ(Parse(dense).layers[1].window, 7);
  config["layer_types"] = {"sliding_attention", "full_attention",
                           "full_attention"};
  const ModelConfig listed = Parse(config);
  EXPECT_EQ(listed.layers[0].window, 7);
  EXPECT_EQ(listed.layers[2].window, 0);
  config.erase("layer_types");
  config["use_sliding_window"] = false;
  EXPECT_EQ(Parse(config).layers[2].window, 0);
}

TEST(Config, UnknownModelTypeListsThoseSupported) {
  json config = Moe();
  config["model_type"] = "gpt_neox";
  EXPECT_THAT(Message(config),
              AllOf(HasSubstr("'gpt_neox'"), HasSubstr("qwen3, qwen3_moe")));
  config.erase("model_type");
  EXPECT_THAT(Message(config), HasSubstr("model_type is missing"));
  EXPECT_THAT(Message(json::array()), HasSubstr("not a JSON object"));
}

// A rope_scaling of llama3 that lacks a key.
json Llama3Without(const char* key) {
  json scaling = {{"rope_type", "llama3"},
                  {"factor", 8},
                  {"low_freq_factor", 1},
                  {"high_freq_factor", 4},
                  {"original_max_position_embeddings", 64}};
  scaling.erase(key);
  return scaling;
}

TEST(Config, Llama3MayStateTheOriginalContextBesideItsScaling) {
  const char* original = "original_max_position_embeddings";
  json config = Moe();
  config["rope_scaling"] = Llama3Without(original);
  config[original] = 32;
  EXPECT_EQ(Parse(config).rope.original_context, 32);
}

struct BadField {
  std::string name;
  std::string key;
  json value;
  std::string message;
};

class BadFieldTest : public ::testing::TestWithParam<BadField> {};

TEST_P(BadFieldTest, IsNamedWithItsValue) {
  json config = Moe();
  config[GetParam().key] = GetParam().value;
  EXPECT_THAT(Message(config),
              AllOf(HasSubstr(GetParam().key), HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Config, BadFieldTest,
    ::testing::Values(
        BadField{"zero", "hidden_size", 0, "= 0, but it must be an integer"},
        BadField{"negative", "num_hidden_layers", -3, "from 1 to 4096"},
        BadField{"huge", "vocab_size", 18446744073709551615u, "from 1 to"},
        BadField{"text", "hidden_size", "64", "= \"64\", but"},
        BadField{"fraction", "num_attention_heads", 4.5, "= 4.5, but"},
        BadField{"missing", "vocab_size", nullptr, "is missing"},
        BadField{"layers", "num_hidden_layers", 1000000, "from 1 to 4096"},
        BadField{"kv_heads", "num_key_value_heads", 3, "must divide"},
        BadField{"head_dim", "head_dim", 33, "must be even"},
        BadField{"many_experts", "num_local_experts", 2000, "from 1 to 1024"},
        BadField{"many_chosen", "num_experts_per_tok", 9, "there are 8"},
        BadField{"two_counts", "num_experts", 16, "says otherwise"},
        BadField{"act", "hidden_act", "gelu", "only 'silu' is"},
        BadField{"bool", "norm_topk_prob", 1, "true or false"},
        BadField{"few_types", "layer_types", json::array({"full_attention"}),
                 "one entry for each layer"},
        BadField{"types", "layer_types", json::array({"conv", "conv", "conv"}),
                 "'full_attention' and 'sliding_attention' are"},
        BadField{"types_text", "layer_types", "full_attention",
                 "one entry for each layer"},
        BadField{"scaling", "rope_scaling",
                 json{{"type", "ntk"}, {"factor", 4}},
                 "llama3 and longrope are"},
        BadField{"factor", "rope_scaling",
                 json{{"type", "yarn"}, {"factor", -4}}, "above 0"},
        BadField{"no_factor", "rope_scaling", json{{"rope_type", "linear"}},
                 "rope_scaling: factor = null"},
        BadField{"no_llama3_factor", "rope_scaling", Llama3Without("factor"),
                 "rope_scaling: factor = null"},
        BadField{"no_llama3_low", "rope_scaling",
                 Llama3Without("low_freq_factor"),
                 "rope_scaling: low_freq_factor = null"},
        BadField{"no_llama3_high", "rope_parameters",
                 Llama3Without("high_freq_factor"),
                 "rope_parameters: high_freq_factor = null"},
        BadField{"no_llama3_original", "rope_scaling",
                 Llama3Without("original_max_position_embeddings"),
                 "original_max_position_embeddings = null"},
        BadField{"per_type", "rope_parameters",
                 json{{"full_attention", {{"rope_theta", 1e4}}}},
                 "one rotation for all layers"},
        BadField{"partial", "partial_rotary_factor", 0.5, "only 1 is"},
        BadField{"theta", "rope_theta", 5.0, "rope_theta"},
        BadField{"theta_negative", "rope_theta", -1, "above 0"},
        BadField{"eps", "rms_norm_eps", "small", "a number above 0"},
        BadField{"quantised", "quantization_config",
                 json{{"quant_method", "gptq"}}, "mxfp4 and fp8 are"},
        BadField{"mlp_only", "mlp_only_layers", json::array({7}),
                 "from 0 to 2"}),
    [](const auto& info) { return info.param.name; });

TEST(GenerationDefaults, ComeFromGenerationConfigThenConfig) {
  const auto both = ParseGenerationDefaults(
      ReadJson("models/default/config.json"),
      ReadJson("models/default/generation_config.json"));
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_THAT(both->eos_ids, ElementsAre(8191, 8189));
  EXPECT_EQ(both->bos_id, std::nullopt);
  EXPECT_EQ(both->do_sample, true);
  EXPECT_EQ(both->temperature, 0.7f);
  EXPECT_EQ(both->top_p, 0.9f);
  EXPECT_EQ(both->repetition_penalty, 1.1f);
  EXPECT_EQ(both->top_k, std::nullopt);

  const auto one = ParseGenerationDefaults(Moe(), json());
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_THAT(one->eos_ids, ElementsAre(2));
  EXPECT_EQ(one->bos_id, 1);
}

TEST(GenerationDefaults, ZeroTemperatureIsAllowedAndNonsenseIsNamed) {
  EXPECT_TRUE(
      ParseGenerationDefaults(Moe(), {{"temperature", 0}, {"min_p", 0}}).ok());
  for (const auto& [key, value] : std::vector<std::pair<std::string, json>>{
           {"temperature", -1},
           {"top_p", 0},
           {"top_p", 1.5},
           {"top_k", -1},
           {"repetition_penalty", "x"},
           {"eos_token_id", json::array({1, -2})},
           {"eos_token_id", "</s>"}}) {
    const absl::Status status =
        ParseGenerationDefaults(Moe(), {{key, value}}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << key;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("generation_config.json"), HasSubstr(key)));
  }
}

TEST(ParseJson, RefusesWhatADocumentWouldHide) {
  const auto message = [](std::string_view text) {
    const absl::Status status =
        ParseJson(text, "x.json", absl::StatusCode::kDataLoss).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    return std::string(status.message());
  };
  EXPECT_THAT(message(R"({"a":1,"b":{"c":1,"c":2}})"),
              HasSubstr("x.json has the key 'c' twice"));
  EXPECT_THAT(message(std::string(100000, '[')), HasSubstr("deeper than 64"));
  EXPECT_THAT(message("{\"a\":}"), HasSubstr("not valid JSON at byte 6"));
  EXPECT_THAT(message(""), HasSubstr("not valid JSON"));
  EXPECT_TRUE(
      ParseJson(R"({"a":{"c":1},"b":{"c":1}})", "x", absl::StatusCode::kUnknown)
          .ok());
}

}  // namespace
}  // namespace bullpen
