// The decoder against transformers' float32 results (tests/golden/README.md
// has the tolerances and where they come from).

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "gtest/gtest.h"
#include "tests/fakes/decoder.h"
#include "tests/fakes/golden.h"

namespace bullpen {
namespace {

constexpr float kLogitTolerance = 1e-3f;
constexpr float kWeightTolerance = 1e-4f;
constexpr double kSafeMargin = 2e-3;

class ModelGoldenTest : public testing::TestWithParam<const char*> {
 protected:
  const std::filesystem::path source_ = GetParam();
  const Golden golden_ = LoadGolden(source_);
};

float LargestDifference(const std::vector<float>& a,
                        const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  float largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const float difference = std::fabs(a[i] - b[i]);
    largest = std::isnan(difference) ? INFINITY : std::max(largest, difference);
  }
  return largest;
}

TEST_P(ModelGoldenTest, LogitsAgreeAtEveryPosition) {
  Decoder decoder(source_, WithActivations("f32"));
  float worst = 0;
  for (size_t p = 0; p < golden_.prompts.size(); ++p) {
    decoder.Restart();
    const std::vector<float> logits = decoder.Feed(golden_.prompts[p], 64);
    const Golden::Tensor& wanted =
        golden_.tensors.at("logits." + std::to_string(p));
    const float difference = LargestDifference(logits, wanted.f32);
    EXPECT_LE(difference, kLogitTolerance) << "prompt " << p;
    worst = std::max(worst, difference);
  }
  std::printf("%-24s largest logit error %.1e\n", GetParam(), worst);
}

TEST_P(ModelGoldenTest, HiddenStatesAndRoutingAgree) {
  Decoder decoder(source_, WithActivations("f32"));
  int routed_layers = 0;
  decoder.model().set_tap(
      {.hidden =
           [&](int layer, std::span<const float> hidden) {
             EXPECT_LE(
                 LargestDifference(
                     {hidden.begin(), hidden.end()},
                     golden_.tensors.at("hidden." + std::to_string(layer)).f32),
                 kLogitTolerance)
                 << "layer " << layer;
           },
       .routing =
           [&](int layer, std::span<const int32_t> experts,
               std::span<const float> weights) {
             ++routed_layers;
             const std::string prefix = "router." + std::to_string(layer);
             const auto& ids = golden_.tensors.at(prefix + ".experts");
             const auto& shares = golden_.tensors.at(prefix + ".weights").f32;
             ASSERT_EQ(experts.size(), ids.i32.size());
             const size_t k = static_cast<size_t>(ids.shape[1]);
             for (size_t row = 0; row < experts.size(); row += k) {
               std::map<int32_t, float> got, wanted;
               for (size_t r = row; r < row + k; ++r) {
                 got[experts[r]] = weights[r];
                 wanted[ids.i32[r]] = shares[r];
               }
               ASSERT_EQ(got.size(), k);
               for (const auto& [expert, weight] : wanted) {
                 ASSERT_TRUE(got.contains(expert))
                     << "layer " << layer << " row " << row / k;
                 EXPECT_NEAR(got[expert], weight, kWeightTolerance);
               }
             }
           }});
  decoder.Feed(golden_.prompts[2], 64);
  int moe_layers = 0;
  for (const auto& [name, tensor] : golden_.tensors) {
    moe_layers += name.starts_with("router.") && name.ends_with(".experts");
  }
  EXPECT_EQ(routed_layers, moe_layers);
}

TEST_P(ModelGoldenTest, GreedyIdsAgreeWhileTheMarginIsSafe) {
  Decoder decoder(source_, WithActivations("f32"));
  for (size_t p = 0; p < golden_.prompts.size(); ++p) {
    decoder.Restart();
    std::vector<float> logits = decoder.Feed(golden_.prompts[p], 64);
    const size_t vocab = logits.size() / golden_.prompts[p].size();
    for (size_t step = 0; step < golden_.greedy[p].size() &&
                          golden_.margins[p][step] >= kSafeMargin;
         ++step) {
      const auto last = logits.end() - static_cast<int64_t>(vocab);
      const int32_t id =
          static_cast<int32_t>(std::max_element(last, logits.end()) - last);
      ASSERT_EQ(id, golden_.greedy[p][step])
          << "prompt " << p << " step " << step;
      logits = decoder.Feed({id}, 1);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Families, ModelGoldenTest,
    testing::Values(
        "tests/golden/deepseek_v2", "tests/golden/deepseek_v2_group",
        "tests/golden/deepseek_v3", "tests/golden/dots1",
        "tests/golden/ernie4_5_moe", "tests/golden/flex_olmo",
        "tests/golden/glm4_moe", "tests/golden/gpt_oss",
        "tests/golden/gpt_oss_mxfp4", "tests/golden/granitemoe",
        "tests/golden/llama", "tests/golden/longrope/llama",
        "tests/golden/longrope/phimoe", "tests/golden/minimax_m2",
        "tests/golden/mixtral", "tests/golden/olmoe", "tests/golden/phimoe",
        "tests/golden/qwen2_moe", "tests/golden/qwen3",
        "tests/golden/qwen3_moe", "models/default",
        // Other sizes and switches: clip_qkv, longrope, biases, windows, mscale
        // that does not cancel, tied heads.
        "tests/golden/odd/deepseek_v2", "tests/golden/odd/ernie4_5_moe",
        "tests/golden/odd/llama", "tests/golden/odd/mixtral",
        "tests/golden/odd/olmoe", "tests/golden/odd/phimoe"),
    [](const auto& info) {
      const std::filesystem::path path(info.param);
      const std::string name = path.filename().string();
      const std::string set = path.parent_path().filename().string();
      return set == "odd" || set == "longrope" ? set + "_" + name : name;
    });

}  // namespace
}  // namespace bullpen
