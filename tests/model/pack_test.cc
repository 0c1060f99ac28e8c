#include "engine/model/pack.h"

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "base/strings.h"
#include "engine/model/checkpoint.h"
#include "engine/model/families.h"
#include "engine/model/pack_plan.h"
#include "engine/model/safetensors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/checkpoint_writer.h"
#include "tests/model/packed_weights.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

const fs::path kMoe = "tests/golden/qwen3_moe";
const fs::path kDense = "tests/golden/qwen3";

fs::path Temp(const std::string& name) { return ScratchPath(name); }

std::vector<FakeTensor> TensorsOf(const fs::path& dir) {
  return ReadTensors(dir / "model.safetensors");
}

FakeTensor& Find(std::vector<FakeTensor>& tensors, const std::string& name) {
  const auto found = std::find_if(
      tensors.begin(), tensors.end(),
      [&](const FakeTensor& tensor) { return tensor.name == name; });
  EXPECT_NE(found, tensors.end()) << name;
  return *found;
}

void Remove(std::vector<FakeTensor>& tensors, std::string_view part) {
  std::erase_if(tensors, [&](const FakeTensor& tensor) {
    return tensor.name.find(part) != std::string::npos;
  });
}

class SameWeightsTest : public ::testing::TestWithParam<std::string> {};

TEST_P(SameWeightsTest, AfterPackOpenAndLoad) {
  const fs::path source = GetParam();
  const fs::path target = Temp("same_" + source.filename().string());
  const PackedModel model = PackAndOpen(source, target);
  ExpectSameWeights(TensorsOf(source), model);
  for (const char* name : {"config.json", "generation_config.json",
                           "tokenizer.json", "tokenizer_config.json"}) {
    ASSERT_EQ(fs::exists(source / name), fs::exists(target / name)) << name;
    if (fs::exists(source / name)) {
      EXPECT_EQ(ReadText(source / name), ReadText(target / name)) << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Pack, SameWeightsTest,
                         ::testing::Values("models/default",
                                           "tests/golden/qwen3_moe",
                                           "tests/golden/qwen3"));

TEST(Pack, WritesFilesThatAnySafetensorsReaderTakes) {
  const fs::path target = Temp("standard");
  PackAndOpen(kMoe, target);
  const auto experts = SafetensorsFile::Open(target / "experts.safetensors");
  ASSERT_TRUE(experts.ok()) << experts.status();
  EXPECT_EQ(experts->data_offset() % 4096, 0);
  EXPECT_EQ(experts->tensors().size(), 24u);
  EXPECT_EQ(experts->tensors().at("layers.2.experts.7").dtype, "U8");
  EXPECT_TRUE(SafetensorsFile::Open(target / "resident.safetensors").ok());
}

TEST(Pack, IsTheSameBytesEachTime) {
  PackAndOpen(kMoe, Temp("once"));
  PackAndOpen(kMoe, Temp("again"));
  for (const char* name :
       {"manifest.json", "experts.safetensors", "resident.safetensors"}) {
    EXPECT_TRUE(ReadText(Temp("once") / name) == ReadText(Temp("again") / name))
        << name;
  }
}

TEST(Pack, FusedExpertsGiveTheSameModelAsSeparateOnes) {
  const std::vector<FakeTensor> separate = TensorsOf(kMoe);
  std::vector<FakeTensor> fused = separate;
  Remove(fused, ".mlp.experts.");
  std::vector<FakeTensor> all = separate;
  for (int l = 0; l < 3; ++l) {
    const std::string at = absl::StrCat("model.layers.", l, ".mlp.experts.");
    std::string gate_up, down;
    for (int e = 0; e < 8; ++e) {
      const std::string expert = absl::StrCat(at, e, ".");
      gate_up += Find(all, expert + "gate_proj.weight").bytes +
                 Find(all, expert + "up_proj.weight").bytes;
      down += Find(all, expert + "down_proj.weight").bytes;
    }
    fused.push_back({at + "gate_up_proj", "BF16", {8, 64, 64}, gate_up});
    fused.push_back({at + "down_proj", "BF16", {8, 64, 32}, down});
  }
  WriteModel(Temp("fused_source"), fused, ReadJson(kMoe / "config.json"));
  const PackedModel model = PackAndOpen(Temp("fused_source"), Temp("fused"));
  ExpectSameWeights(separate, model);
}

TEST(Pack, MixedPrecisionWidensExactly) {
  std::vector<FakeTensor> tensors = TensorsOf(kMoe);
  const auto widen = [&](const std::string& name) {
    FakeTensor& tensor = Find(tensors, name);
    tensor.bytes = WidenedBytes(tensor);
    tensor.dtype = "F32";
  };
  widen("model.layers.0.mlp.experts.3.up_proj.weight");
  widen("model.layers.1.self_attn.v_proj.weight");
  widen("model.layers.2.input_layernorm.weight");
  // The same bits read as F16: BF16 and F16 have only F32 in common.
  Find(tensors, "model.layers.2.self_attn.k_proj.weight").dtype = "F16";
  WriteModel(Temp("mixed_source"), tensors, ReadJson(kMoe / "config.json"));
  const PackedModel model = PackAndOpen(Temp("mixed_source"), Temp("mixed"));
  EXPECT_EQ(model.expert_shape(0).dtype, kernels::DType::kF32);
  EXPECT_EQ(model.expert_shape(1).dtype, kernels::DType::kBF16);
  const auto weights = model.LoadResident();
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->matrix("layers.0.qkv").dtype, kernels::DType::kBF16);
  EXPECT_EQ(weights->matrix("layers.1.qkv").dtype, kernels::DType::kF32);
  EXPECT_EQ(weights->matrix("layers.2.qkv").dtype, kernels::DType::kF32);
  ExpectSameWeights(tensors, model);
}

TEST(Pack, OddShapesAndDenseLayersBetweenSparseOnesKeepTheirBits) {
  nlohmann::json config = ReadJson(kMoe / "config.json");
  config.update({{"hidden_size", 37},
                 {"num_attention_heads", 3},
                 {"num_key_value_heads", 1},
                 {"head_dim", 10},
                 {"vocab_size", 53},
                 {"moe_intermediate_size", 19},
                 {"intermediate_size", 21},
                 {"num_local_experts", 3},
                 {"num_experts_per_tok", 2},
                 {"mlp_only_layers", {1}}});
  std::vector<FakeTensor> tensors;
  uint32_t seed = 1;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    int64_t count = 1;
    for (const int64_t dim : shape) count *= dim;
    std::string bytes;
    for (int64_t i = 0; i < 2 * count; ++i) {
      seed = seed * 1664525 + 1013904223;
      bytes += static_cast<char>(seed >> 24);
    }
    tensors.push_back({name, "BF16", shape, bytes});
  };
  add("model.embed_tokens.weight", {53, 37});
  add("lm_head.weight", {53, 37});
  add("model.norm.weight", {37});
  const auto add_ffn = [&](const std::string& at, int64_t inner) {
    add(at + "gate_proj.weight", {inner, 37});
    add(at + "up_proj.weight", {inner, 37});
    add(at + "down_proj.weight", {37, inner});
  };
  for (int l = 0; l < 3; ++l) {
    const std::string at = absl::StrCat("model.layers.", l, ".");
    add(at + "input_layernorm.weight", {37});
    add(at + "post_attention_layernorm.weight", {37});
    add(at + "self_attn.q_proj.weight", {30, 37});
    add(at + "self_attn.k_proj.weight", {10, 37});
    add(at + "self_attn.v_proj.weight", {10, 37});
    add(at + "self_attn.o_proj.weight", {37, 30});
    add(at + "self_attn.q_norm.weight", {10});
    add(at + "self_attn.k_norm.weight", {10});
    if (l == 1) {
      add_ffn(at + "mlp.", 21);
      continue;
    }
    add(at + "mlp.gate.weight", {3, 37});
    for (int e = 0; e < 3; ++e) {
      add_ffn(absl::StrCat(at, "mlp.experts.", e, "."), 19);
    }
  }
  WriteModel(Temp("odd_source"), tensors, config);
  ExpectSameWeights(tensors, PackAndOpen(Temp("odd_source"), Temp("odd")));
}

TEST(Pack, ShardsGiveTheSameModelAsOneFile) {
  const std::vector<FakeTensor> tensors = TensorsOf(kMoe);
  const fs::path source = Temp("shards_source");
  MakeEmpty(source);
  fs::copy(kMoe / "config.json", source / "config.json");
  nlohmann::json index = {{"metadata", {{"total_size", 1}}}};
  std::vector<FakeTensor> shards[2];
  for (size_t i = 0; i < tensors.size(); ++i) {
    shards[i % 2].push_back(tensors[i]);
    index["weight_map"][tensors[i].name] =
        absl::StrCat("model-0000", i % 2 + 1, "-of-00002.safetensors");
  }
  WriteTensors(source / "model-00001-of-00002.safetensors", shards[0]);
  WriteTensors(source / "model-00002-of-00002.safetensors", shards[1]);
  WriteText(source / "model.safetensors.index.json", index.dump());
  ExpectSameWeights(tensors, PackAndOpen(source, Temp("shards")));
}

TEST(Pack, ProgressRisesToTheTotal) {
  int64_t last = 0;
  int64_t whole = 0;
  PackOptions options;
  options.progress = [&](int64_t done, int64_t total) {
    EXPECT_GE(done, last);
    last = done;
    whole = total;
  };
  fs::remove_all(Temp("progress"));
  ASSERT_TRUE(Pack(kMoe, Temp("progress"), options).ok());
  EXPECT_EQ(last, whole);
  EXPECT_GT(whole, 0);
}

TEST(Pack, StacksBiasesOfAFamilyThatHasThem) {
  std::vector<FakeTensor> tensors = TensorsOf(kDense);
  for (int l = 0; l < 3; ++l) {
    const std::string at = absl::StrCat("model.layers.", l, ".self_attn.");
    tensors.push_back(
        {at + "q_proj.bias", "F32", {128}, std::string(512, 'q')});
    tensors.push_back({at + "k_proj.bias", "F32", {64}, std::string(256, 'k')});
    tensors.push_back({at + "v_proj.bias", "F32", {64}, std::string(256, 'v')});
  }
  WriteModel(Temp("bias"), tensors, ReadJson(kDense / "config.json"));
  const auto checkpoint = Checkpoint::Open(Temp("bias"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  auto config = ParseModelConfig(checkpoint->config());
  ASSERT_TRUE(config.ok()) << config.status();
  config->qkv_bias = true;
  Family family = **FindFamily("qwen3");
  family.names.q_bias = "model.layers.$0.self_attn.q_proj.bias";
  family.names.k_bias = "model.layers.$0.self_attn.k_proj.bias";
  family.names.v_bias = "model.layers.$0.self_attn.v_proj.bias";
  const auto plan = PlanPack(*checkpoint, *config, family);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto bias = std::find_if(plan->resident.begin(), plan->resident.end(),
                                 [](const ResidentPlan& p) {
                                   return p.shape.name == "layers.1.qkv_bias";
                                 });
  ASSERT_NE(bias, plan->resident.end());
  EXPECT_EQ(bias->shape.cols, 256);
  EXPECT_EQ(bias->parts.size(), 3u);
}

// What a config says and what the tensors are must agree.
class ContradictionTest : public ::testing::Test {
 protected:
  ContradictionTest()
      : tensors_(TensorsOf(kMoe)), config_(ReadJson(kMoe / "config.json")) {}

  std::string PackMessage() {
    WriteModel(Temp("wrong_source"), tensors_, config_);
    fs::remove_all(Temp("wrong"));
    const absl::Status status = Pack(Temp("wrong_source"), Temp("wrong"), {});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_FALSE(fs::exists(Temp("wrong")));
    return std::string(status.message());
  }

  std::vector<FakeTensor> tensors_;
  nlohmann::json config_;
};

TEST_F(ContradictionTest, MissingTensorIsNamed) {
  Remove(tensors_, "layers.1.mlp.experts.5.up_proj");
  EXPECT_THAT(PackMessage(),
              HasSubstr("no tensor "
                        "'model.layers.1.mlp.experts.5.up_proj.weight'"));
}

TEST_F(ContradictionTest, ShapeIsNamedWithWhatTheConfigSays) {
  config_["vocab_size"] = 321;
  EXPECT_THAT(PackMessage(),
              AllOf(HasSubstr("'model.embed_tokens.weight'"),
                    HasSubstr("[320, 64], but config.json says [321, 64]")));
}

TEST_F(ContradictionTest, TransposedTensorIsNamed) {
  Find(tensors_, "model.layers.0.mlp.experts.0.down_proj.weight").shape = {32,
                                                                           64};
  EXPECT_THAT(PackMessage(), HasSubstr("config.json says [64, 32]"));
}

TEST_F(ContradictionTest, UnsupportedDtypeIsNamed) {
  Find(tensors_, "model.layers.2.self_attn.o_proj.weight").dtype = "I16";
  EXPECT_THAT(PackMessage(),
              AllOf(HasSubstr("o_proj.weight"), HasSubstr("dtype I16"),
                    HasSubstr("F32, F16, BF16 and the block formats")));
}

TEST_F(ContradictionTest, LayersBeyondTheConfigAreNamed) {
  config_["num_hidden_layers"] = 2;
  EXPECT_THAT(PackMessage(),
              AllOf(HasSubstr("'model.layers.2."), HasSubstr("with 2 layers")));
}

TEST_F(ContradictionTest, UnknownTensorIsNamed) {
  tensors_.push_back({"model.layers.0.self_attn.q_proj.bias",
                      "BF16",
                      {4},
                      std::string(8, 'x')});
  EXPECT_THAT(PackMessage(), HasSubstr("q_proj.bias' has no place"));
}

TEST_F(ContradictionTest, SeparateHeadOfATiedModelIsNotRead) {
  config_["tie_word_embeddings"] = true;
  WriteModel(Temp("tied_source"), tensors_, config_);
  const PackedModel model = PackAndOpen(Temp("tied_source"), Temp("tied"));
  EXPECT_FALSE(model.LoadResident()->contains("head"));
}

}  // namespace
}  // namespace bullpen
