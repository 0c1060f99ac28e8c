// GGUF files of several types against transformers with the same weights
// dequantised (tests/golden/README.md).

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fakes/decoder.h"
#include "tests/fakes/golden.h"

namespace bullpen {
namespace {

constexpr float kLogitTolerance = 1e-3f;

// Logits of all positions of a golden prompt, and what transformers computed.
struct Compared {
  std::vector<float> logits;
  std::vector<float> expected;
};

std::vector<Compared> RunGolden(
    const std::filesystem::path& dir, const std::filesystem::path& file,
    const std::map<std::string, Golden::Tensor>& wanted,
    const std::string& activations) {
  const Golden golden = LoadGolden(dir);
  Decoder decoder(file, WithActivations(activations));
  std::vector<Compared> results;
  for (size_t p = 0; p < golden.prompts.size(); ++p) {
    decoder.Restart();
    results.push_back({decoder.Feed(golden.prompts[p], 64),
                       wanted.at("logits." + std::to_string(p)).f32});
    EXPECT_EQ(results.back().logits.size(), results.back().expected.size());
  }
  return results;
}

void ExpectLogits(const std::filesystem::path& dir,
                  const std::filesystem::path& file,
                  const std::map<std::string, Golden::Tensor>& wanted) {
  float worst = 0;
  for (const Compared& prompt : RunGolden(dir, file, wanted, "f32")) {
    for (size_t i = 0; i < prompt.logits.size(); ++i) {
      const float difference = std::fabs(prompt.logits[i] - prompt.expected[i]);
      ASSERT_FALSE(difference > kLogitTolerance || std::isnan(difference))
          << "logit " << i << ": " << prompt.logits[i] << " for "
          << prompt.expected[i];
      worst = std::max(worst, difference);
    }
  }
  std::printf("%-40s largest logit error %.1e\n", file.c_str(), worst);
}

// With integer activations: the median over positions of the mean difference,
// in units of the logits' standard deviation (tests/golden/README.md). Single
// positions may follow a near-tied expert that was chosen otherwise.
void ExpectLogitsWithIntegers(
    const std::filesystem::path& dir, const std::filesystem::path& file,
    const std::map<std::string, Golden::Tensor>& wanted) {
  const int vocab = Decoder(file, {}).model().config().vocab;
  std::vector<double> means;
  double sum = 0, squares = 0, count = 0;
  for (const Compared& prompt : RunGolden(dir, file, wanted, "int8")) {
    for (size_t i = 0; i < prompt.logits.size(); i += vocab) {
      double difference = 0;
      for (int t = 0; t < vocab; ++t) {
        const double expected = prompt.expected[i + t];
        difference += std::fabs(prompt.logits[i + t] - expected);
        sum += expected;
        squares += expected * expected;
      }
      means.push_back(difference / vocab);
      count += vocab;
    }
  }
  const double deviation =
      std::sqrt(squares / count - sum / count * sum / count);
  std::ranges::nth_element(means, means.begin() + std::ssize(means) / 2);
  const double median = means[means.size() / 2] / deviation;
  std::printf("%-40s median logit error %.4f deviations\n", file.c_str(),
              median);
  EXPECT_LT(median, 0.05);
  EXPECT_GT(median, 0) << "integers were not used";
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

// Files with block types.
using GgufIntegersTest = GgufGoldenTest;

TEST_P(GgufIntegersTest, IntegerActivationsStayClose) {
  ExpectLogitsWithIntegers(
      dir_, file_, LoadGoldenTensors(file_.string() + ".golden.safetensors"));
}

// The same weights as the checkpoint of that family, so the same logits.
class GgufFamilyTest : public testing::TestWithParam<const char*> {};

TEST_P(GgufFamilyTest, LogitsAreThoseOfTheCheckpoint) {
  const std::filesystem::path dir =
      std::filesystem::path("tests/golden") / GetParam();
  ExpectLogits(dir, dir / "model.bf16.gguf", LoadGolden(dir).tensors);
}

INSTANTIATE_TEST_SUITE_P(Files, GgufFamilyTest,
                         testing::Values("qwen2_moe", "glm4_moe",
                                         "gpt_oss_mxfp4", "deepseek_v2",
                                         "deepseek_v2_group", "deepseek_v3",
                                         "llama", "qwen3", "gguf_llama3"),
                         [](const auto& info) {
                           return std::string(info.param);
                         });

INSTANTIATE_TEST_SUITE_P(
    Files, GgufGoldenTest,
    testing::Combine(testing::Values("qwen3_moe", "olmoe", "mixtral"),
                     testing::Values("bf16", "q8_0", "mixed")),
    [](const auto& info) {
      return std::string(std::get<0>(info.param)) + "_" +
             std::get<1>(info.param);
    });

INSTANTIATE_TEST_SUITE_P(Files, GgufIntegersTest,
                         testing::Combine(testing::Values("qwen3_moe", "olmoe",
                                                          "mixtral"),
                                          testing::Values("q8_0", "mixed")),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" +
                                  std::get<1>(info.param);
                         });

}  // namespace
}  // namespace bullpen
