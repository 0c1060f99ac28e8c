#include "tools/inspect.h"

#include <filesystem>

#include "engine/model/pack.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/checkpoint_writer.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;
using ::testing::HasSubstr;

const fs::path kDir = "tests/golden/qwen3_moe";

ordered_json Inspected(const fs::path& path) {
  const absl::StatusOr<ordered_json> found = InspectModel(path);
  EXPECT_TRUE(found.ok()) << found.status();
  return found.ok() ? *found : ordered_json::object();
}

const ordered_json& Tensor(const ordered_json& found, const std::string& name) {
  for (const ordered_json& tensor : found["tensors"]) {
    if (tensor["name"] == name) return tensor;
  }
  ADD_FAILURE() << "no tensor " << name;
  return found["tensors"][0];
}

TEST(Inspect, GgufShowsMetadataTypesAndShapes) {
  const ordered_json found = Inspected(kDir / "model.q8_0.gguf");
  EXPECT_EQ(found["kind"], "gguf");
  EXPECT_EQ(found["metadata"]["general.architecture"], "qwen3moe");
  EXPECT_EQ(found["metadata"]["qwen3moe.expert_count"], 8);
  const ordered_json& experts = Tensor(found, "blk.0.ffn_gate_exps.weight");
  EXPECT_EQ(experts["dtype"], "Q8_0");
  EXPECT_EQ(experts["shape"], (std::vector<int64_t>{8, 32, 64}));
  EXPECT_EQ(experts["bytes"], 8 * 32 * 2 * 34);
  EXPECT_GT(found["types"]["Q8_0"]["tensors"].get<int>(), 10);
  const std::string text = InspectionText(found);
  EXPECT_THAT(text, HasSubstr("general.architecture = \"qwen3moe\""));
  EXPECT_THAT(text, HasSubstr("blk.0.ffn_gate_exps.weight"));
}

TEST(Inspect, DirectoryAndItsFileShowTheSameTensors) {
  const ordered_json directory = Inspected(kDir);
  const ordered_json file = Inspected(kDir / "model.safetensors");
  EXPECT_EQ(directory["metadata"]["model_type"], "qwen3_moe");
  EXPECT_EQ(directory["tensors"], file["tensors"]);
}

TEST(Inspect, PackedModelShowsResidentTensorsAndExperts) {
  const fs::path target = ScratchPath("inspected");
  ASSERT_TRUE(Pack(kDir / "model.q8_0.gguf", target, {}).ok());
  const ordered_json found = Inspected(target);
  EXPECT_EQ(found["kind"], "packed");
  EXPECT_EQ(Tensor(found, "layers.0.experts")["dtype"], "Q8_0");
  EXPECT_EQ(Tensor(found, "layers.0.router")["dtype"], "F32");
  EXPECT_EQ(Tensor(found, "layers.0.qkv")["dtype"], "Q8_0");
}

TEST(Inspect, WhatIsNoModelIsNamed) {
  const fs::path path = ScratchPath("plain.txt");
  WriteText(path, "nothing of the kind");
  EXPECT_THAT(std::string(InspectModel(path).status().message()),
              HasSubstr("plain.txt"));
}

}  // namespace
}  // namespace bullpen
