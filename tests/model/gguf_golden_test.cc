// GGUF files of several types against transformers with the same weights
// dequantised (tests/golden/README.md).

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>

#include "gtest/gtest.h"
#include "tests/fakes/decoder.h"
#include "tests/fakes/golden.h"

namespace bullpen {
namespace {

constexpr float kLogitTolerance = 1e-3f;

void ExpectLogits(const std::filesystem::path& dir,
                  const std::filesystem::path& file,
                  const std::map<std::string, Golden::Tensor>& wanted) {
  const Golden golden = LoadGolden(dir);
  Decoder decoder(file, {});
  float worst = 0;
  for (size_t p = 0; p < golden.prompts.size(); ++p) {
    decoder.Restart();
    const std::vector<float> logits = decoder.Feed(golden.prompts[p], 64);
    const std::vector<float>& expected =
        wanted.at("logits." + std::to_string(p)).f32;
    ASSERT_EQ(logits.size(), expected.size());
    for (size_t i = 0; i < logits.size(); ++i) {
      const float difference = std::fabs(logits[i] - expected[i]);
      ASSERT_FALSE(difference > kLogitTolerance || std::isnan(difference))
          << "prompt " << p << " logit " << i << ": " << logits[i] << " for "
          << expected[i];
      worst = std::max(worst, difference);
    }
  }
  std::printf("%-40s largest logit error %.1e\n", file.c_str(), worst);
}

class GgufGoldenTest
    : public testing::TestWithParam<std::tuple<const char*, const char*>> {
 protected:
  const std::filesystem::path dir_ =
      std::filesystem::path("tests/golden") / std::get<0>(GetParam());
  const std::filesystem::path file_ =
      dir_ / (std::string("model.") + std::get<1>(GetParam()) + ".gguf");
};

TEST_P(GgufGoldenTest, LogitsAgreeAtEveryPosition) {
  ExpectLogits(dir_, file_,
               LoadGoldenTensors(file_.string() + ".golden.safetensors"));
}

// The same weights as the checkpoint of that family, so the same logits.
class GgufFamilyTest : public testing::TestWithParam<const char*> {};

TEST_P(GgufFamilyTest, LogitsAreThoseOfTheCheckpoint) {
  const std::filesystem::path dir =
      std::filesystem::path("tests/golden") / GetParam();
  ExpectLogits(dir, dir / "model.bf16.gguf", LoadGolden(dir).tensors);
}

INSTANTIATE_TEST_SUITE_P(
    Files, GgufFamilyTest,
    testing::Values("qwen2_moe", "glm4_moe", "gpt_oss_mxfp4", "deepseek_v2",
                    "deepseek_v2_group", "deepseek_v3", "llama", "qwen3"),
    [](const auto& info) { return std::string(info.param); });

INSTANTIATE_TEST_SUITE_P(
    Files, GgufGoldenTest,
    testing::Combine(testing::Values("qwen3_moe", "olmoe", "mixtral"),
                     testing::Values("bf16", "q8_0", "mixed")),
    [](const auto& info) {
      return std::string(std::get<0>(info.param)) + "_" +
             std::get<1>(info.param);
    });

}  // namespace
}  // namespace bullpen
