// The same checkpoint in other words gives the same model: copies of the
// goldens as they would be released, nested in a wrapper, with fused experts,
// in other types. Their logits equal those of the original to the bit.

#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/pack.h"
#include "engine/model/packed_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/checkpoint_writer.h"
#include "tests/fakes/decoder.h"
#include "tests/fakes/golden.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct Copy {
  json config;
  std::vector<FakeTensor> tensors;
};

Copy ReadCopy(const std::string& family) {
  const fs::path source = fs::path("tests/golden") / family;
  return {ReadJson(source / "config.json"),
          ReadTensors(source / "model.safetensors")};
}

fs::path WriteCopy(const Copy& copy, const std::string& name) {
  const fs::path dir = ScratchPath(name);
  MakeEmpty(dir);
  WriteText(dir / "config.json", copy.config.dump());
  WriteTensors(dir / "model.safetensors", copy.tensors);
  return dir;
}

std::vector<float> LogitsOf(const fs::path& source,
                            const std::vector<int32_t>& prompt) {
  Decoder decoder(source, {});
  return decoder.Feed(prompt, 64);
}

void ExpectSameModel(const std::string& family, const Copy& copy,
                     const std::string& name) {
  const fs::path original = fs::path("tests/golden") / family;
  const std::vector<int32_t> prompt = LoadGolden(original).prompts[2];
  EXPECT_EQ(LogitsOf(WriteCopy(copy, family + "-" + name), prompt),
            LogitsOf(original, prompt))
      << family << " " << name;
}

// As on model hubs: rope_theta at the top, rope_scaling beside it where there
// is any, and the keys that transformers 5 renames.
void Release(json& config) {
  json rope = config["rope_parameters"];
  config.erase("rope_parameters");
  config.erase("transformers_version");
  config["torch_dtype"] = config["dtype"];
  config.erase("dtype");
  config["rope_theta"] = rope["rope_theta"];
  rope.erase("rope_theta");
  if (rope.contains("partial_rotary_factor")) {
    config["partial_rotary_factor"] = rope["partial_rotary_factor"];
    rope.erase("partial_rotary_factor");
  }
  if (rope["rope_type"] == "default") {
    config["rope_scaling"] = nullptr;
  } else {
    rope["type"] = rope["rope_type"];
    rope.erase("rope_type");
    config["rope_scaling"] = rope;
  }
  const std::string type = config["model_type"];
  if (type == "qwen3_moe" || type == "qwen2_moe" || type == "olmoe" ||
      type == "flex_olmo") {
    if (config.contains("num_local_experts")) {
      config["num_experts"] = config["num_local_experts"];
      config.erase("num_local_experts");
    }
  }
  if (type == "minimax_m2") {
    config["rotary_dim"] = config["partial_rotary_factor"].get<double>() *
                           config["head_dim"].get<int>();
    config["rotary_dim"] = static_cast<int>(config["rotary_dim"].get<double>());
    config.erase("partial_rotary_factor");
  }
}

class SpellingTest : public testing::TestWithParam<const char*> {};

TEST_P(SpellingTest, ReleasedConfigIsTheSameModel) {
  Copy copy = ReadCopy(GetParam());
  Release(copy.config);
  ExpectSameModel(GetParam(), copy, "released");
}

// transformers 5: text_config, and model.language_model. before the names.
TEST_P(SpellingTest, DecoderOfAWrapperIsTheSameModel) {
  Copy copy = ReadCopy(GetParam());
  json inner = copy.config;
  inner["model_type"] = inner["model_type"].get<std::string>() + "_text";
  copy.config = {{"model_type", "some_wrapper"},
                 {"text_config", inner},
                 {"vision_config", {{"hidden_size", 7}}}};
  for (FakeTensor& tensor : copy.tensors) {
    if (tensor.name.starts_with("model.")) {
      tensor.name = "model.language_model." + tensor.name.substr(6);
    }
  }
  copy.tensors.push_back(
      {"model.visual.patch.weight", "F32", {1}, std::string(4, '\0')});
  ExpectSameModel(GetParam(), copy, "wrapped");
}

// Before it: the whole causal model under language_model.
TEST_P(SpellingTest, OlderWrapperIsTheSameModel) {
  Copy copy = ReadCopy(GetParam());
  json inner = copy.config;
  Release(inner);
  copy.config = {{"model_type", "older_wrapper"},
                 {"tie_word_embeddings", inner["tie_word_embeddings"]},
                 {"text_config", inner}};
  copy.config["text_config"].erase("tie_word_embeddings");
  for (FakeTensor& tensor : copy.tensors) {
    tensor.name = "language_model." + tensor.name;
  }
  copy.tensors.push_back(
      {"vision_tower.patch.weight", "F32", {1}, std::string(4, '\0')});
  ExpectSameModel(GetParam(), copy, "older");
}

TEST_P(SpellingTest, WeightsInF32AreTheSameModel) {
  Copy copy = ReadCopy(GetParam());
  for (FakeTensor& tensor : copy.tensors) {
    if (tensor.dtype != "BF16") continue;
    tensor.bytes = WidenedBytes(tensor);
    tensor.dtype = "F32";
  }
  ExpectSameModel(GetParam(), copy, "f32");
}

INSTANTIATE_TEST_SUITE_P(
    Families, SpellingTest,
    testing::Values("deepseek_v2", "deepseek_v2_group", "deepseek_v3", "dots1",
                    "ernie4_5_moe", "flex_olmo", "glm4_moe", "gpt_oss",
                    "gpt_oss_mxfp4", "granitemoe", "llama", "minimax_m2",
                    "mixtral", "olmoe", "phimoe", "qwen2_moe", "qwen3",
                    "qwen3_moe"),
    [](const auto& info) { return std::string(info.param); });

// Replaces the matrices of all experts by two tensors, [E, 2I, H] with gate
// rows first, and [E, H, I].
Copy WithFusedExperts(const std::string& family, const std::string& gate,
                      const std::string& up, const std::string& down) {
  Copy copy = ReadCopy(family);
  std::map<std::string, std::map<int, std::map<std::string, FakeTensor>>> found;
  std::vector<FakeTensor> kept;
  const std::string marker = ".experts.";
  for (const FakeTensor& tensor : copy.tensors) {
    // PREFIX.experts.INDEX.PART.weight
    const size_t at = tensor.name.find(marker);
    if (at == std::string::npos) {
      kept.push_back(tensor);
      continue;
    }
    const std::string rest = tensor.name.substr(at + marker.size());
    const size_t dot = rest.find('.');
    const std::string part = rest.substr(dot + 1, rest.rfind('.') - dot - 1);
    found[tensor.name.substr(0, at)][std::stoi(rest)][part] = tensor;
  }
  for (auto& [prefix, experts] : found) {
    const std::vector<int64_t> shape = experts[0][gate].shape;
    const int64_t count = static_cast<int64_t>(experts.size());
    FakeTensor both{"", "BF16", {count, 2 * shape[0], shape[1]}, ""};
    FakeTensor one{"", "BF16", {count, shape[1], shape[0]}, ""};
    // As transformers keeps them, whatever the names on hubs are.
    const std::string base =
        prefix.substr(0, prefix.rfind('.')) + ".mlp.experts";
    both.name = base + ".gate_up_proj";
    one.name = base + ".down_proj";
    for (auto& [index, parts] : experts) {
      both.bytes += parts[gate].bytes + parts[up].bytes;
      one.bytes += parts[down].bytes;
    }
    kept.push_back(both);
    kept.push_back(one);
  }
  copy.tensors = kept;
  return copy;
}

TEST(FusedExperts, AreTheSameModel) {
  for (const char* family :
       {"qwen3_moe", "qwen2_moe", "olmoe", "deepseek_v3", "ernie4_5_moe"}) {
    ExpectSameModel(
        family, WithFusedExperts(family, "gate_proj", "up_proj", "down_proj"),
        "fused");
  }
  for (const char* family : {"mixtral", "phimoe", "minimax_m2"}) {
    ExpectSameModel(family, WithFusedExperts(family, "w1", "w3", "w2"),
                    "fused");
  }
}

// transformers 5 spells what JSON has no number for.
// As ERNIE 4.5 is released, and as MiniMax names its modules.
TEST(Spelling, WhatPredictsFurtherTokensIsNotRead) {
  const auto add = [](Copy& copy, const std::string& name) {
    copy.tensors.push_back({name, "F32", {1}, std::string(4, '\0')});
  };
  Copy ernie = ReadCopy("ernie4_5_moe");
  for (const char* name :
       {"block.0.self_attn.q_proj.weight", "emb_norm.0.weight",
        "hidden_norm.0.weight", "linear_proj.0.weight"}) {
    add(ernie, std::string("model.mtp_") + name);
  }
  ExpectSameModel("ernie4_5_moe", ernie, "further");
  Copy minimax = ReadCopy("minimax_m2");
  const int layers = minimax.config["num_hidden_layers"];
  add(minimax, absl::StrCat("model.layers.", layers, ".eh_proj.weight"));
  minimax.config["num_mtp_modules"] = 3;
  ExpectSameModel("minimax_m2", minimax, "further");
}

TEST(Spelling, InfinityIsANumber) {
  Copy copy = ReadCopy("gpt_oss");
  copy.config["swiglu_limit"] = {{"__float__", "Infinity"}};
  copy.config["router_aux_loss_coef"] = {{"__float__", "NaN"}};
  Copy large = ReadCopy("gpt_oss");
  large.config["swiglu_limit"] = 1e30;
  const std::vector<int32_t> prompt = {5, 9, 200};
  EXPECT_EQ(LogitsOf(WriteCopy(copy, "infinite"), prompt),
            LogitsOf(WriteCopy(large, "large"), prompt));
}

// E4M3 by the text of its specification: 1, 4 and 3 bits, bias 7.
double E4M3(int code) {
  const int exponent = code >> 3 & 15;
  const double mantissa = (code & 7) / 8.0;
  const double size = exponent == 0
                          ? mantissa * std::pow(2, -6)
                          : (1 + mantissa) * std::pow(2, exponent - 7);
  return code & 128 ? -size : size;
}

// DeepSeek-V3 and Qwen3 as released: FP8 with a scale for each block.
// `scale_of` gives one for a random number.
struct Fp8Copies {
  Copy packed, plain;
  size_t scales = 0;
};
Fp8Copies MakeFp8(const std::function<float(uint32_t)>& scale_of) {
  Copy packed = ReadCopy("deepseek_v3"), plain = packed;
  const int64_t block_rows = 24, block_cols = 40;
  packed.config["quantization_config"] = {
      {"quant_method", "fp8"},
      {"fmt", "e4m3"},
      {"weight_block_size", {block_rows, block_cols}}};
  std::vector<FakeTensor> scales;
  uint32_t seed = 1;
  for (size_t i = 0; i < packed.tensors.size(); ++i) {
    FakeTensor& tensor = packed.tensors[i];
    if (tensor.name.find("_proj") == std::string::npos) continue;
    const int64_t rows = tensor.shape[0], cols = tensor.shape[1];
    const int64_t across = (cols + block_cols - 1) / block_cols;
    const int64_t down = (rows + block_rows - 1) / block_rows;
    std::vector<float> scale(across * down), values(rows * cols);
    for (float& s : scale) {
      seed = seed * 1664525 + 1013904223;
      s = scale_of(seed >> 20);
    }
    tensor.dtype = "F8_E4M3";
    tensor.bytes.resize(rows * cols);
    for (int64_t at = 0; at < rows * cols; ++at) {
      seed = seed * 1664525 + 1013904223;
      int code = static_cast<int>(seed >> 24);
      if ((code & 127) == 127) code = 0;  // NaN
      tensor.bytes[at] = static_cast<char>(code);
      values[at] =
          static_cast<float>(E4M3(code)) *
          scale[at / cols / block_rows * across + at % cols / block_cols];
    }
    const auto bytes = [](const std::vector<float>& floats) {
      return std::string(reinterpret_cast<const char*>(floats.data()),
                         floats.size() * sizeof(float));
    };
    scales.push_back(
        {tensor.name + "_scale_inv", "F32", {down, across}, bytes(scale)});
    plain.tensors[i].dtype = "F32";
    plain.tensors[i].bytes = bytes(values);
  }
  packed.tensors.insert(packed.tensors.end(), scales.begin(), scales.end());
  return {std::move(packed), std::move(plain), scales.size()};
}

const std::vector<int32_t> kFp8Prompt = {5, 9, 200, 7};

TEST(Fp8, IsTheSameModelAsItsValuesInF32) {
  const Fp8Copies copies = MakeFp8([](uint32_t random) {
    return 0.001f + static_cast<float>(random) * 1e-6f;
  });
  ASSERT_GT(copies.scales, 100u);
  const std::vector<float> wanted =
      LogitsOf(WriteCopy(copies.plain, "fp8-plain"), kFp8Prompt);
  ASSERT_FALSE(std::isnan(wanted[0]));
  EXPECT_EQ(LogitsOf(WriteCopy(copies.packed, "fp8"), kFp8Prompt), wanted);
}

TEST(Fp8, BlocksMayBeDescribedInsideAWrapper) {
  Fp8Copies copies = MakeFp8([](uint32_t random) {
    return 0.001f + static_cast<float>(random) * 1e-6f;
  });
  const std::vector<float> wanted =
      LogitsOf(WriteCopy(copies.plain, "fp8-inside-plain"), kFp8Prompt);
  copies.packed.config = {{"model_type", "some_wrapper"},
                          {"text_config", copies.packed.config}};
  EXPECT_EQ(LogitsOf(WriteCopy(copies.packed, "fp8-inside"), kFp8Prompt),
            wanted);
}

float PowerOfTwo(uint32_t random) {
  return std::ldexp(1.0f, -8 - static_cast<int>(random % 4));
}

// DeepSeek-V3.1: such weights are BF16, to the bit.
TEST(Fp8, ScalesThatArePowersOfTwoNeedHalfTheSize) {
  Fp8Copies copies = MakeFp8(PowerOfTwo);
  const std::vector<float> wanted =
      LogitsOf(WriteCopy(copies.plain, "fp8-powers-plain"), kFp8Prompt);
  copies.packed.config["quantization_config"]["scale_fmt"] = "ue8m0";
  const std::filesystem::path dir = WriteCopy(copies.packed, "fp8-powers");
  EXPECT_EQ(LogitsOf(dir, kFp8Prompt), wanted);
  const auto model = PackedModel::Open(PackedForTest(dir));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->expert_shape(2).dtype, kernels::DType::kBF16);
}

TEST(Fp8, ScalesMayBeBareExponents) {
  Fp8Copies copies = MakeFp8(PowerOfTwo);
  const std::vector<float> wanted =
      LogitsOf(WriteCopy(copies.plain, "fp8-exponents-plain"), kFp8Prompt);
  for (FakeTensor& tensor : copies.packed.tensors) {
    if (!tensor.name.ends_with("_scale_inv")) continue;
    std::string exponents;
    for (size_t at = 0; at < tensor.bytes.size(); at += sizeof(float)) {
      float scale;
      std::memcpy(&scale, tensor.bytes.data() + at, sizeof(scale));
      exponents += static_cast<char>(std::ilogb(scale) + 127);
    }
    tensor.dtype = "F8_E8M0";
    tensor.bytes = exponents;
  }
  EXPECT_EQ(LogitsOf(WriteCopy(copies.packed, "fp8-exponents"), kFp8Prompt),
            wanted);
}

TEST(Fp8, AScaleThatIsNoPowerOfTwoContradictsTheConfig) {
  Fp8Copies copies = MakeFp8([](uint32_t) { return 0.003f; });
  copies.packed.config["quantization_config"]["scale_fmt"] = "ue8m0";
  const std::filesystem::path dir = WriteCopy(copies.packed, "fp8-not-powers");
  const absl::Status status = Pack(dir, dir.string() + "-packed", {});
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              testing::HasSubstr("powers of two"));
}

}  // namespace
}  // namespace bullpen
