// What a text makes large, and what quantising makes of that.

#include "engine/model/importance.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <vector>

#include "engine/model/pack.h"
#include "gtest/gtest.h"
#include "tests/fakes/decoder.h"
#include "tests/fakes/golden.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;

TEST(Importance, IsTheMeanSquareRelativeToTheMatrix) {
  Importance importance;
  std::vector<float> x(1000 * 3);
  for (size_t row = 0; row < 1000; ++row) {
    x[row * 3] = 1;
    x[row * 3 + 1] = row % 2 == 0 ? 2.0f : -2.0f;
    x[row * 3 + 2] = 100;  // beyond the columns
  }
  importance.Add({.layer = 4,
                  .matrix = "qkv",
                  .x = x.data(),
                  .x_stride = 3,
                  .rows = 1000,
                  .cols = 2});
  const std::vector<float> columns = importance.Of("layers.4.qkv");
  ASSERT_EQ(columns.size(), 2u);
  EXPECT_NEAR(columns[0], 1 / 2.5, 0.02);
  EXPECT_NEAR(columns[1], 4 / 2.5, 0.02);
}

TEST(Importance, FewRowsSayLittleAndNoneNothing) {
  Importance importance;
  EXPECT_TRUE(importance.empty());
  const std::vector<float> x = {5, 5, 0, 8};
  const std::vector<int32_t> second = {1};
  importance.Add({.layer = 0,
                  .matrix = "experts.down",
                  .expert = 3,
                  .x = x.data(),
                  .x_stride = 2,
                  .x_row = second.data(),
                  .rows = 1,
                  .cols = 2});
  const std::vector<float> columns =
      importance.Of(Importance::ExpertMatrix(0, 3, "experts.down"));
  ASSERT_EQ(columns.size(), 2u);
  EXPECT_GT(columns[0], 0.9);
  EXPECT_LT(columns[1], 1.1);
  EXPECT_TRUE(
      importance.Of(Importance::ExpertMatrix(0, 2, "experts.down")).empty());
  EXPECT_TRUE(importance.Of("head").empty());
}

TEST(Importance, ZerosAndInfinitiesSayNothing) {
  const std::vector<float> zeros(4), infinite = {1, 2, INFINITY, 3};
  for (const std::vector<float>& x : {zeros, infinite}) {
    Importance importance;
    importance.Add({.layer = -1,
                    .matrix = "head",
                    .x = x.data(),
                    .x_stride = 4,
                    .rows = 1,
                    .cols = 4});
    EXPECT_TRUE(importance.Of("head").empty());
  }
}

Importance Gather(const fs::path& source, const std::string& isa,
                  int32_t chunk) {
  Importance importance;
  ModelOptions options;
  options.isa = isa;
  Decoder decoder(source, options);
  decoder.model().set_tap(
      {.input = [&](const MatrixInput& input) { importance.Add(input); }});
  decoder.Feed(LoadGolden(source).prompts[3], chunk);
  return importance;
}

// Every matrix that can be quantised but an untied embedding, which is looked
// up, and experts that no token has called.
TEST(Importance, KnowsEveryMatrixThatIsQuantised) {
  for (const char* family :
       {"qwen3_moe", "qwen2_moe", "deepseek_v3", "gpt_oss", "olmoe"}) {
    const fs::path source = fs::path("tests/golden") / family;
    const Importance importance = Gather(source, "auto", 16);
    const auto model = PackedModel::Open(PackedForTest(source));
    ASSERT_TRUE(model.ok()) << model.status();
    for (const auto& [name, tensor] : model->tensors()) {
      const bool quantised = tensor.panels && !name.ends_with("router") &&
                             (name != "embed" || model->config().tied_head);
      const std::vector<float> columns = importance.Of(name);
      EXPECT_EQ(columns.size(),
                quantised ? static_cast<size_t>(tensor.cols) : 0u)
          << family << " " << name;
    }
    EXPECT_GT(importance.experts(), 0) << family;
  }
}

TEST(Importance, IsTheSameForAnyInstructionSetAndAnyChunks) {
  const fs::path source = "tests/golden/qwen2_moe";
  const std::string digest = Gather(source, "auto", 16).Digest();
  EXPECT_EQ(Gather(source, "oracle", 16).Digest(), digest);
  EXPECT_EQ(Gather(source, "auto", 5).Digest(), digest);
}

TEST(Importance, MakesAnotherModelOfTheSameSource) {
  const fs::path source = "tests/golden/qwen3_moe";
  const Importance importance = Gather(source, "auto", 16);
  const fs::path plain = fs::path(testing::TempDir()) / "uncalibrated";
  const fs::path calibrated = fs::path(testing::TempDir()) / "calibrated";
  fs::remove_all(plain);
  fs::remove_all(calibrated);
  std::map<fs::path, PackReport> reports;
  for (const fs::path& target : {plain, calibrated}) {
    PackOptions options;
    options.targets.experts = kernels::DType::kQ4_0;
    if (target == calibrated) options.importance = &importance;
    options.report = [&](const PackReport& report) {
      reports[target] = report;
    };
    const absl::Status status = Pack(source, target, options);
    ASSERT_TRUE(status.ok()) << status;
  }
  for (const PackedTensor& tensor : reports[plain].tensors) {
    EXPECT_EQ(tensor.weighted_squares, 0) << tensor.name;
  }
  const PackedTensor& gate_up =
      *std::ranges::find(reports[calibrated].tensors,
                         "layers.1.experts.gate_up", &PackedTensor::name);
  EXPECT_GT(gate_up.weighted_squares, 0);
  EXPECT_LT(gate_up.relative_weighted_error(), gate_up.relative_error());
  PackOptions uncalibrated;
  uncalibrated.targets.experts = kernels::DType::kQ4_0;
  EXPECT_EQ(Pack(source, calibrated, uncalibrated).code(),
            absl::StatusCode::kAlreadyExists);
}

}  // namespace
}  // namespace bullpen
