// Keys of GGUF metadata that change what a model computes.

#include <filesystem>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "engine/model/checkpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/fakes/checkpoint_writer.h"
#include "tests/fakes/gguf_writer.h"

namespace bullpen {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr uint32_t kBoolType = 7;
constexpr uint32_t kF32Type = 6;
constexpr uint32_t kArrayType = 9;

// A key behind the architecture's name.
struct Key {
  std::string name;
  std::variant<float, uint32_t, bool, std::string, std::vector<float>> value;
};

void Append(GgufBytes& file, const std::string& name, const Key& key) {
  if (const auto* text = std::get_if<std::string>(&key.value)) {
    file.Key(name, *text);
  } else if (const auto* count = std::get_if<uint32_t>(&key.value)) {
    file.Key(name, *count);
  } else if (const auto* yes = std::get_if<bool>(&key.value)) {
    file.String(name).Number(kBoolType).Number<uint8_t>(*yes ? 1 : 0);
  } else if (const auto* list = std::get_if<std::vector<float>>(&key.value)) {
    file.String(name).Number(kArrayType).Number(kF32Type);
    file.Number<uint64_t>(list->size());
    for (const float value : *list) file.Number(value);
  } else {
    file.String(name).Number(kF32Type).Number(std::get<float>(key.value));
  }
}

// The config of a small file of that architecture with these keys more, and
// with a vector of that name.
absl::StatusOr<json> ConfigWith(const std::string& architecture,
                                const std::vector<Key>& more,
                                const std::string& vector = "any.bias") {
  std::vector<Key> keys = {{"block_count", 2u},
                           {"context_length", 64u},
                           {"embedding_length", 8u},
                           {"feed_forward_length", 8u},
                           {"attention.head_count", 2u}};
  if (architecture != "qwen3") {
    keys.push_back({"expert_count", 4u});
    keys.push_back({"expert_used_count", 2u});
  }
  keys.insert(keys.end(), more.begin(), more.end());
  GgufBytes file;
  file.Start(2, keys.size() + 1).Key("general.architecture", architecture);
  for (const Key& key : keys) {
    Append(file, architecture + "." + key.name, key);
  }
  file.Tensor("token_embd.weight", {8, 8}, 0, 0).Tensor(vector, {8}, 0, 256);
  file.PadTo(32).Data(256 + 32);
  const std::filesystem::path path = ScratchPath("metadata.gguf");
  WriteText(path, file.bytes());
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(path);
  if (!checkpoint.ok()) return checkpoint.status();
  return checkpoint->config();
}

std::string ErrorOf(const std::string& architecture, const Key& key) {
  const absl::Status status = ConfigWith(architecture, {key}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument)
      << key.name << ": " << status;
  return std::string(status.message());
}

TEST(GgufRope, AFactorWithoutATypeIsLinear) {
  for (const char* key : {"rope.scaling.factor", "rope.scale_linear"}) {
    const auto config = ConfigWith("llama", {{key, 4.0f}});
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ((*config)["rope_scaling"],
              (json{{"rope_type", "linear"}, {"factor", 4.0}}));
    for (const float none : {0.0f, 1.0f}) {
      const auto plain = ConfigWith("llama", {{key, none}});
      ASSERT_TRUE(plain.ok()) << plain.status();
      EXPECT_FALSE(plain->contains("rope_scaling")) << none;
    }
    const auto off = ConfigWith(
        "llama", {{key, 4.0f}, {"rope.scaling.type", std::string("none")}});
    ASSERT_TRUE(off.ok()) << off.status();
    EXPECT_FALSE(off->contains("rope_scaling"));
  }
}

TEST(GgufRope, AllThatYarnReadsReachesTheConfig) {
  const auto config =
      ConfigWith("qwen3moe", {{"rope.scaling.type", std::string("yarn")},
                              {"rope.scaling.factor", 4.0f},
                              {"rope.scaling.original_context_length", 16u},
                              {"rope.scaling.yarn_ext_factor", 1.0f},
                              {"rope.scaling.yarn_beta_fast", 16.0f},
                              {"rope.scaling.yarn_beta_slow", 2.0f},
                              {"rope.scaling.yarn_attn_factor", 0.5f}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ((*config)["rope_scaling"],
            (json{{"rope_type", "yarn"},
                  {"factor", 4.0},
                  {"original_max_position_embeddings", 16},
                  {"beta_fast", 16.0},
                  {"beta_slow", 2.0},
                  {"attention_factor", 0.5}}));
}

TEST(GgufRope, WhatYarnCannotDoIsNamed) {
  const auto error = [](const char* type, const char* key, float value) {
    const absl::Status status =
        ConfigWith("qwen3moe", {{"rope.scaling.type", std::string(type)},
                                {"rope.scaling.factor", 4.0f},
                                {key, value}})
            .status();
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(std::string("qwen3moe.") + key + " = "));
  };
  error("yarn", "rope.scaling.yarn_ext_factor", 0.0f);
  error("yarn", "rope.scaling.attn_factor", 0.5f);
  error("linear", "rope.scaling.yarn_ext_factor", 1.0f);
  error("linear", "rope.scaling.yarn_attn_factor", 0.5f);
}

TEST(GgufRope, WindowsHaveTheBaseOfAllLayers) {
  const Key own = {"rope.freq_base", 500.0f};
  EXPECT_TRUE(
      ConfigWith("gpt-oss", {own, {"rope.freq_base_swa", 500.0f}}).ok());
  EXPECT_THAT(ErrorOf("gpt-oss", {"rope.freq_base_swa", 500.0f}),
              HasSubstr("gpt-oss.rope.freq_base_swa = 500 is not supported; "
                        "rope.freq_base, 10000, is"));
}

// Heads of four. GLM-4.5 rotates half of each and says so, Solar Open all.
TEST(GgufRope, AllOfAHeadIsRotatedUnlessTheFileSaysWhatPart) {
  const auto share = [](const std::vector<Key>& keys) {
    const auto config = ConfigWith("glm4moe", keys);
    EXPECT_TRUE(config.ok()) << config.status();
    return (*config)["partial_rotary_factor"].get<double>();
  };
  EXPECT_EQ(share({}), 1);
  EXPECT_EQ(share({{"rope.dimension_count", 4u}}), 1);
  EXPECT_EQ(share({{"rope.dimension_count", 2u}}), 0.5);
}

TEST(GgufRope, AsMuchOfAHeadIsRotatedAsTheFileCounts) {
  for (const auto& [rotary, head] : std::vector<std::pair<uint32_t, uint32_t>>{
           {26, 46}, {30, 44}, {24, 47}, {2, 49}, {32, 64}, {64, 192}}) {
    const auto config =
        ConfigWith("glm4moe", {{"attention.key_length", head},
                               {"attention.value_length", head},
                               {"rope.dimension_count", rotary}});
    ASSERT_TRUE(config.ok()) << config.status();
    const double share = (*config)["partial_rotary_factor"].get<double>();
    EXPECT_EQ(static_cast<uint32_t>(head * share), rotary) << head;
  }
}

TEST(GgufModel, AKeyThatNothingReadsMustBeNeutral) {
  const std::vector<Key> changing = {
      {"attention.causal", false},        {"attention.clamp_kqv", 8.0f},
      {"attention.scale", 0.5f},          {"attention.scale", 1.0f},
      {"attention.sliding_window", 16u},  {"attention.temperature_scale", 0.1f},
      {"attn_logit_softcapping", 50.0f},  {"embedding_scale", 12.0f},
      {"expert_group_count", 4u},         {"expert_weights_scale", 2.5f},
      {"final_logit_softcapping", 30.0f}, {"logit_scale", 0.5f},
      {"residual_scale", 0.22f},          {"rope.scaling.attn_factor", 1.19f},
  };
  const std::vector<Key> neutral = {
      {"attention.causal", true},         {"attention.clamp_kqv", 0.0f},
      {"attention.scale", 0.0f},          {"attention.sliding_window", 0u},
      {"attn_logit_softcapping", 0.0f},   {"expert_group_count", 1u},
      {"expert_weights_scale", 1.0f},     {"logit_scale", 1.0f},
      {"rope.scaling.attn_factor", 1.0f}, {"rope.scaling.finetuned", true},
  };
  for (const std::string architecture : {"llama", "qwen3", "qwen3moe"}) {
    for (const Key& key : changing) {
      EXPECT_THAT(ErrorOf(architecture, key),
                  HasSubstr(architecture + "." + key.name + " = "));
    }
    const auto config = ConfigWith(architecture, neutral);
    EXPECT_TRUE(config.ok()) << config.status();
  }
}

TEST(GgufModel, AWindowOfTheWholeContextIsNone) {
  EXPECT_TRUE(ConfigWith("qwen3moe", {{"attention.sliding_window", 64u}}).ok());
  EXPECT_THAT(ErrorOf("qwen3moe", {"attention.sliding_window", 63u}),
              HasSubstr("sliding_window = 63 is not supported; 0 is, and from "
                        "the context length of 64 on"));
}

TEST(GgufModel, WhatAnArchitectureMapsIsNotRefused) {
  const auto olmoe = ConfigWith("olmoe", {{"attention.clamp_kqv", 8.0f}});
  ASSERT_TRUE(olmoe.ok()) << olmoe.status();
  EXPECT_EQ((*olmoe)["clip_qkv"], 8.0);
  const auto gpt_oss =
      ConfigWith("gpt-oss", {{"attention.sliding_window", 16u},
                             {"attention.sliding_window_pattern", 2u}});
  ASSERT_TRUE(gpt_oss.ok()) << gpt_oss.status();
  EXPECT_EQ((*gpt_oss)["sliding_window"], 16);
  const auto glm = ConfigWith("glm4moe", {{"expert_gating_func", 2u},
                                          {"expert_weights_scale", 2.5f},
                                          {"expert_group_count", 2u}});
  ASSERT_TRUE(glm.ok()) << glm.status();
  EXPECT_EQ((*glm)["routed_scaling_factor"], 2.5);
  EXPECT_EQ((*glm)["n_group"], 2);
}

TEST(GgufModel, GptOssHasOneLimitForAllLayers) {
  const auto config = ConfigWith(
      "gpt-oss", {{"swiglu_clamp_exp", std::vector<float>{5.0f, 5.0f}}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ((*config)["swiglu_limit"], 5.0);
  EXPECT_THAT(
      ErrorOf("gpt-oss", {"swiglu_clamp_exp", std::vector<float>{5.0f, 7.0f}}),
      HasSubstr("gpt-oss.swiglu_clamp_exp = "));
}

// The first files of GLM-4.7-Flash do not say how it scores.
TEST(GgufModel, ADeepseekWithABiasForTheChoiceScoresBySigmoid) {
  const std::vector<Key> keys = {{"attention.kv_lora_rank", 4u},
                                 {"attention.key_length", 4u},
                                 {"attention.value_length", 4u},
                                 {"rope.dimension_count", 2u}};
  const char* bias = "blk.1.exp_probs_b.bias";
  constexpr uint32_t kAbsent = 9;
  const auto type = [](std::vector<Key> all, const char* tensor,
                       uint32_t gating) {
    if (gating != kAbsent) all.push_back({"expert_gating_func", gating});
    const auto config = ConfigWith("deepseek2", all, tensor);
    EXPECT_TRUE(config.ok()) << config.status();
    return config.ok() ? (*config)["model_type"].get<std::string>() : "";
  };
  EXPECT_EQ(type(keys, bias, kAbsent), "deepseek_v3");
  EXPECT_EQ(type(keys, bias, 0), "deepseek_v3");
  EXPECT_EQ(type(keys, bias, 1), "deepseek_v2");
  EXPECT_EQ(type(keys, "any.bias", kAbsent), "deepseek_v2");
  EXPECT_EQ(type(keys, "any.bias", 2), "deepseek_v3");
}

TEST(GgufModel, TheFirstFilesOfQwenHaveOneWidth) {
  const auto first = ConfigWith("qwen2moe", {});
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ((*first)["moe_intermediate_size"], 8 / 2);
  EXPECT_EQ((*first)["shared_expert_intermediate_size"], 8);
  const auto later =
      ConfigWith("qwen2moe", {{"expert_feed_forward_length", 3u},
                              {"expert_shared_feed_forward_length", 5u}});
  ASSERT_TRUE(later.ok()) << later.status();
  EXPECT_EQ((*later)["moe_intermediate_size"], 3);
  EXPECT_EQ((*later)["shared_expert_intermediate_size"], 5);
}

// A family's own rule, where a key could say otherwise.
TEST(GgufModel, AKeyThatContradictsTheFamilyIsNamed) {
  EXPECT_THAT(ErrorOf("llama", {"expert_weights_norm", false}),
              HasSubstr("llama.expert_weights_norm = false"));
  EXPECT_THAT(ErrorOf("gpt-oss", {"attention.sliding_window_pattern", 4u}),
              HasSubstr("sliding_window_pattern = 4"));
  EXPECT_THAT(ErrorOf("olmoe", {"expert_gating_func", 3u}),
              HasSubstr("olmoe.expert_gating_func = 3"));
}

}  // namespace
}  // namespace bullpen
