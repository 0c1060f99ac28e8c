// Quantising while packing.

#include "engine/model/pack_types.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <vector>

#include "engine/model/pack.h"
#include "engine/model/packed_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/decoder.h"
#include "tests/fakes/golden.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;
using kernels::DType;
using ::testing::HasSubstr;

const fs::path kSource = "tests/golden/qwen3_moe";

struct Quantised {
  fs::path dir;
  PackReport report;
};

Quantised PackAs(const std::string& name, const TargetTypes& targets) {
  Quantised result{fs::path(testing::TempDir()) / ("quantised-" + name), {}};
  fs::remove_all(result.dir);
  PackOptions options;
  options.targets = targets;
  options.report = [&](const PackReport& report) { result.report = report; };
  const absl::Status status = Pack(kSource, result.dir, options);
  EXPECT_TRUE(status.ok()) << status;
  return result;
}

const PackedTensor& TensorOf(const PackReport& report,
                             const std::string& name) {
  const auto found =
      std::ranges::find(report.tensors, name, &PackedTensor::name);
  EXPECT_TRUE(found != report.tensors.end()) << name;
  return *found;
}

TEST(PackTypes, NamesInEitherCaseAndListsThemAll) {
  EXPECT_EQ(*ParseTargetType("q4_k"), DType::kQ4_K);
  EXPECT_EQ(*ParseTargetType("MXFP4"), DType::kMXFP4);
  for (const char* name : {"f32", "q9", "q2_k", ""}) {
    const absl::Status status = ParseTargetType(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr("Q4_0, Q4_1")) << name;
  }
}

TEST(PackTypes, MatricesTakeTheirTargetsAndRoutersStay) {
  const Quantised packed =
      PackAs("kinds", {.experts = DType::kIQ4_NL, .resident = DType::kQ8_0});
  const auto model = PackedModel::Open(packed.dir);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->expert_shape(0).dtype, DType::kIQ4_NL);
  EXPECT_EQ(model->expert_shape(0).down_dtype(), DType::kIQ4_NL);
  const auto weights = model->LoadResident();
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->matrix("layers.1.qkv").dtype, DType::kQ8_0);
  EXPECT_EQ(weights->matrix("embed").dtype, DType::kQ8_0);
  EXPECT_EQ(weights->matrix("layers.1.router").dtype, DType::kBF16);
  const std::string text = packed.report.ToText();
  EXPECT_THAT(text, HasSubstr("BF16 -> IQ4_NL"));
  EXPECT_THAT(text, HasSubstr("BF16 -> Q8_0"));
  const PackedTensor& gate_up =
      TensorOf(packed.report, "layers.2.experts.gate_up");
  EXPECT_EQ(gate_up.from, "BF16");
  EXPECT_EQ(gate_up.to, "IQ4_NL");
  EXPECT_EQ(gate_up.reason, "");
  EXPECT_EQ(gate_up.weights, 8 * 2 * 64 * 32);
  EXPECT_EQ(gate_up.source_bytes, 2 * gate_up.weights);
  EXPECT_EQ(gate_up.packed_bytes, gate_up.weights / 32 * 18);
  EXPECT_GT(gate_up.relative_error(), 0.04);
  EXPECT_LT(gate_up.relative_error(), 0.09);
  EXPECT_EQ(TensorOf(packed.report, "layers.1.qkv").to, "Q8_0");
}

// Rows of 64 and 32 are no blocks of 256.
TEST(PackTypes, ShortRowsTakeTheNextType) {
  const Quantised packed = PackAs("short", {.experts = DType::kQ4_K});
  const auto model = PackedModel::Open(packed.dir);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->expert_shape(0).dtype, DType::kQ5_0);
  EXPECT_EQ(TensorOf(packed.report, "layers.0.experts.down").reason,
            "rows of 32 are no whole blocks of Q4_K");
}

TEST(PackTypes, AnotherTargetIsAnotherModel) {
  const Quantised packed = PackAs("other", {.experts = DType::kQ8_0});
  EXPECT_EQ(Pack(kSource, packed.dir, {}).code(),
            absl::StatusCode::kAlreadyExists);
}

TEST(PackTypes, EightBitsMoveLogitsLittle) {
  const Quantised packed =
      PackAs("logits", {.experts = DType::kQ8_0, .resident = DType::kQ8_0});
  const Golden golden = LoadGolden(kSource);
  Decoder decoder(packed.dir, {});
  const std::vector<float> logits = decoder.Feed(golden.prompts[2], 64);
  const std::vector<float>& wanted = golden.tensors.at("logits.2").f32;
  ASSERT_EQ(logits.size(), wanted.size());
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    sum += std::fabs(logits[i] - wanted[i]);
  }
  // Logits have a standard deviation of 2.
  EXPECT_LT(sum / static_cast<double>(logits.size()), 0.1);
  EXPECT_GT(sum, 0);
}

}  // namespace
}  // namespace bullpen
