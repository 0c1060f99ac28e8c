#include "engine/model/checkpoint.h"

#include <chrono>
#include <filesystem>
#include <string>

#include "engine/model/row_reader.h"
#include "engine/model/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/checkpoint_writer.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

// A model of two shards; its tests break one thing each.
class ShardsTest : public ::testing::Test {
 protected:
  ShardsTest() : dir_(ScratchPath("shards")) {
    MakeEmpty(dir_);
    WriteText(dir_ / "config.json", "{}");
    WriteTensors(dir_ / "a.safetensors", {{"one", "F16", {1}, "11"}});
    WriteTensors(dir_ / "b.safetensors", {{"two", "F16", {1}, "22"}});
    WriteIndex({{"one", "a.safetensors"}, {"two", "b.safetensors"}});
  }
  void WriteIndex(const nlohmann::json& map) {
    WriteText(dir_ / "model.safetensors.index.json",
              nlohmann::json{{"weight_map", map}}.dump());
  }
  std::string OpenMessage(absl::StatusCode code) {
    const absl::Status status = Checkpoint::Open(dir_).status();
    EXPECT_EQ(status.code(), code) << status;
    return std::string(status.message());
  }

  const fs::path dir_;
};

TEST_F(ShardsTest, AreReadThroughTheIndex) {
  const auto checkpoint = Checkpoint::Open(dir_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const SourceTensor& two = checkpoint->tensors().at("two");
  EXPECT_EQ(checkpoint->file_of(two).filename(), "b.safetensors");
  RowReader reader(*checkpoint);
  const auto bytes = reader.Read(two, {0, 1}, kernels::DType::kF16);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(
      std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size()),
      "22");
}

TEST_F(ShardsTest, MissingShardIsNamed) {
  fs::remove(dir_ / "b.safetensors");
  EXPECT_THAT(OpenMessage(absl::StatusCode::kNotFound),
              HasSubstr("names the shard b.safetensors, which is not there"));
}

TEST_F(ShardsTest, TensorInTwoShardsIsNamed) {
  WriteTensors(dir_ / "b.safetensors",
               {{"two", "F16", {1}, "22"}, {"one", "F16", {1}, "11"}});
  EXPECT_THAT(OpenMessage(absl::StatusCode::kDataLoss),
              AllOf(HasSubstr("'one' is both in"), HasSubstr("a.safetensors"),
                    HasSubstr("b.safetensors")));
}

TEST_F(ShardsTest, TensorThatIsNotInItsShardIsNamed) {
  WriteIndex({{"one", "b.safetensors"}, {"two", "a.safetensors"}});
  EXPECT_THAT(OpenMessage(absl::StatusCode::kDataLoss),
              HasSubstr("'one' is in b.safetensors, but it is not"));
  WriteIndex({{"one", "a.safetensors"}, {"three", "b.safetensors"}});
  EXPECT_THAT(OpenMessage(absl::StatusCode::kDataLoss),
              HasSubstr("'three' is in b.safetensors, but it is not"));
}

TEST_F(ShardsTest, ShardsOutsideTheDirectoryAreRefused) {
  for (const char* name : {"../a.safetensors", "/etc/passwd", "..", ""}) {
    WriteIndex({{"one", name}});
    EXPECT_THAT(OpenMessage(absl::StatusCode::kDataLoss),
                HasSubstr("not a file name beside the index"))
        << name;
  }
  WriteIndex({{"one", 7}});
  EXPECT_THAT(OpenMessage(absl::StatusCode::kDataLoss), HasSubstr("'one'"));
}

TEST_F(ShardsTest, BadIndexIsNamed) {
  const fs::path index = dir_ / "model.safetensors.index.json";
  WriteText(index, "{\"weight_map\":");
  EXPECT_THAT(OpenMessage(absl::StatusCode::kDataLoss),
              AllOf(HasSubstr(index.string()), HasSubstr("not valid JSON")));
  WriteText(index, "{}");
  EXPECT_THAT(OpenMessage(absl::StatusCode::kDataLoss),
              HasSubstr("weight_map is missing"));
}

TEST_F(ShardsTest, WhatIsMissingIsNamed) {
  fs::remove(dir_ / "model.safetensors.index.json");
  EXPECT_THAT(OpenMessage(absl::StatusCode::kNotFound),
              HasSubstr("neither model.safetensors nor"));
  WriteText(dir_ / "pytorch_model.bin", "x");
  EXPECT_THAT(OpenMessage(absl::StatusCode::kNotFound),
              HasSubstr("convert it to safetensors"));
  fs::remove(dir_ / "config.json");
  EXPECT_THAT(OpenMessage(absl::StatusCode::kNotFound),
              HasSubstr("config.json"));
  fs::remove_all(dir_);
  EXPECT_THAT(OpenMessage(absl::StatusCode::kNotFound),
              HasSubstr("is not a directory"));
}

TEST_F(ShardsTest, LinksAreFollowed) {
  fs::rename(dir_ / "a.safetensors", dir_ / "blob");
  fs::create_symlink("blob", dir_ / "a.safetensors");
  WriteText(dir_ / "ends", R"({"eos_token_id": 7})");
  fs::create_symlink("ends", dir_ / "generation_config.json");
  const auto checkpoint = Checkpoint::Open(dir_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->generation()["eos_token_id"], 7);
}

// As a cache of downloads has them whose files were removed.
TEST_F(ShardsTest, LinksThatLeadNowhereAreNamed) {
  for (const char* name :
       {"config.json", "generation_config.json", "tokenizer.json",
        "tokenizer_config.json", "chat_template.jinja", "tokenizer.model",
        "model.safetensors", "a.safetensors"}) {
    const bool there = fs::exists(dir_ / name);
    if (there) fs::rename(dir_ / name, dir_ / "kept");
    for (const fs::path target : {"gone", name}) {
      fs::create_symlink(target, dir_ / name);
      const std::string message =
          OpenMessage(absl::StatusCode::kFailedPrecondition);
      EXPECT_THAT(message, HasSubstr("cannot open " + (dir_ / name).string()));
      EXPECT_THAT(message, HasSubstr(target == "gone"
                                         ? "a link to gone, which is not there"
                                         : "levels of symbolic links"));
      fs::remove(dir_ / name);
    }
    if (there) fs::rename(dir_ / "kept", dir_ / name);
  }
}

TEST_F(ShardsTest, ATokenizersLinkThatLeadsNowhereIsNotAnAbsentFile) {
  fs::copy("tests/golden/tokenizers/mistral_v1/tokenizer.model",
           dir_ / "tokenizer.model");
  ASSERT_TRUE(Tokenizer::FromDirectory(dir_).ok());
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
    fs::create_symlink("gone", dir_ / name);
    EXPECT_THAT(Tokenizer::FromDirectory(dir_).status().ToString(),
                HasSubstr((dir_ / name).string()));
    fs::remove(dir_ / name);
  }
}

TEST_F(ShardsTest, ABrokenConfigIsNotPassedOverForAGguf) {
  WriteText(dir_ / "model.gguf", "GGUF");
  fs::remove(dir_ / "config.json");
  fs::create_symlink("gone", dir_ / "config.json");
  EXPECT_THAT(OpenMessage(absl::StatusCode::kFailedPrecondition),
              HasSubstr("config.json"));
}

TEST_F(ShardsTest, KeyFollowsTheContent) {
  const auto key = [&] { return *Checkpoint::Open(dir_)->ContentKey(); };
  const std::string first = key();
  EXPECT_EQ(first.size(), 32u);
  EXPECT_EQ(key(), first);
  WriteText(dir_ / "README.md", "not part of the model");
  EXPECT_EQ(key(), first);

  WriteText(dir_ / "config.json", "{ }");
  const std::string other_config = key();
  EXPECT_NE(other_config, first);
  WriteText(dir_ / "tokenizer.json", "{}");
  const std::string other_tokenizer = key();
  EXPECT_NE(other_tokenizer, other_config);
  fs::last_write_time(
      dir_ / "a.safetensors",
      fs::last_write_time(dir_ / "a.safetensors") + std::chrono::seconds(1));
  EXPECT_NE(key(), other_tokenizer);
}

}  // namespace
}  // namespace bullpen
