#include "engine/model/safetensors.h"

#include <sys/stat.h>

#include <filesystem>
#include <numeric>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/checkpoint_writer.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

fs::path TestFile(const std::string& name) { return ScratchPath(name); }

std::string OpenMessage(const fs::path& path) {
  const absl::Status status = SafetensorsFile::Open(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(path.string()));
  return std::string(status.message());
}

TEST(Safetensors, WhatTheWriterWroteIsReadBack) {
  const fs::path path = TestFile("written");
  fs::remove(path);
  auto writer =
      SafetensorsWriter::Create(path, {{"b", "U8", {4096}}, {"a", "F32", {2}}},
                                /*alignment=*/4096);
  ASSERT_TRUE(writer.ok()) << writer.status();
  std::vector<std::byte> data(4096 + 8);
  for (size_t i = 0; i < data.size(); ++i) data[i] = std::byte(i % 251);
  ASSERT_TRUE(writer->Append(std::span(data).first(100)).ok());
  ASSERT_TRUE(writer->Append(std::span(data).subspan(100)).ok());
  ASSERT_TRUE(writer->Finish().ok());

  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->data_offset() % 4096, 0);
  const TensorInfo& a = file->tensors().at("a");
  EXPECT_EQ(a.ShapeText(), "[2]");
  std::vector<std::byte> read(4);
  ASSERT_TRUE(file->Read(a, 4, read).ok());
  EXPECT_EQ(read, std::vector(data.end() - 4, data.end()));
}

TEST(Safetensors, TheWriterDoesNotReplaceAFile) {
  const fs::path path = TestFile("taken");
  WriteText(path, "precious");
  const auto writer = SafetensorsWriter::Create(path, {}, 8);
  EXPECT_EQ(writer.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ReadText(path), "precious");
}

TEST(Safetensors, ScalarsAndEmptyTensorsAreAllowed) {
  const fs::path path = TestFile("scalar");
  WriteTensors(path,
               {{"scalar", "F32", {}, "abcd"}, {"none", "I64", {0, 7}, ""}});
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tensors().at("scalar").bytes, 4);
  EXPECT_EQ(file->tensors().at("none").bytes, 0);
}

TEST(Safetensors, WhatIsNoFileIsRefusedWithoutWaiting) {
  EXPECT_EQ(SafetensorsFile::Open(TestFile("absent")).status().code(),
            absl::StatusCode::kNotFound);
  MakeEmpty(TestFile("directory"));
  EXPECT_EQ(SafetensorsFile::Open(TestFile("directory")).status().code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_EQ(mkfifo(TestFile("pipe").c_str(), 0600), 0);
  EXPECT_EQ(SafetensorsFile::Open(TestFile("pipe")).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(Safetensors, FilesTooShortForTheirHeaderAreNamed) {
  const fs::path path = TestFile("short");
  WriteText(path, "1234567");
  EXPECT_THAT(OpenMessage(path), HasSubstr("has 7 bytes"));
  WriteText(path, std::string("\x10\0\0\0\0\0\0\0{}", 10));
  EXPECT_THAT(OpenMessage(path),
              AllOf(HasSubstr("16 bytes"), HasSubstr("only 2 follow")));
  WriteText(path, std::string(8, '\xff'));
  EXPECT_THAT(OpenMessage(path), AllOf(HasSubstr("18446744073709551615"),
                                       HasSubstr("limit is 100000000")));
}

struct BadHeader {
  std::string name;
  std::string header;
  std::string message;
};

class BadHeaderTest : public ::testing::TestWithParam<BadHeader> {};

TEST_P(BadHeaderTest, IsNamed) {
  const fs::path path = TestFile(GetParam().name);
  WriteSafetensors(path, GetParam().header, "01234567");
  EXPECT_THAT(OpenMessage(path), HasSubstr(GetParam().message));
}

std::string One(const std::string& fields) {
  return "{\"t\":{" + fields + "}}";
}

INSTANTIATE_TEST_SUITE_P(
    Safetensors, BadHeaderTest,
    ::testing::Values(
        BadHeader{"no_json", "hello", "not valid JSON at byte 1"},
        BadHeader{"cut_json", "{\"t\":{\"dtype\":\"U8\"", "not valid JSON"},
        BadHeader{"rest", "{} {}", "not valid JSON"},
        BadHeader{"utf8", "{\"\xff\":{}}", "not valid JSON"},
        BadHeader{"array", "[]", "an array instead of an object"},
        BadHeader{"number", "7", "number 7 instead of an object"},
        BadHeader{"null_tensor", "{\"t\":null}", "'t' is null"},
        BadHeader{"metadata", "{\"__metadata__\":{\"a\":1}}",
                  "number 1 in __metadata__"},
        BadHeader{"metadata_list", "{\"__metadata__\":[]}",
                  "an array as its __metadata__"},
        BadHeader{"deep", "{\"t\":{\"shape\":[[8]]}}",
                  "'t' has an array in its shape"},
        BadHeader{"no_dtype", One(R"("shape":[8],"data_offsets":[0,8])"),
                  "'t' has no dtype"},
        BadHeader{"no_shape", One(R"("dtype":"U8","data_offsets":[0,8])"),
                  "'t' has no shape"},
        BadHeader{"no_offsets", One(R"("dtype":"U8","shape":[8])"),
                  "'t' has no data_offsets"},
        BadHeader{"unknown_field", One(R"("stride":[1])"),
                  "unknown field 'stride'"},
        BadHeader{"twice_field", One(R"("dtype":"U8","dtype":"U8")"),
                  "'t' has dtype twice"},
        BadHeader{"twice",
                  R"({"t":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},)"
                  R"("t":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
                  "tensor 't' stands in the header twice"},
        BadHeader{"dtype",
                  One(R"("dtype":"Q9","shape":[8],"data_offsets":[0,8])"),
                  "unknown dtype 'Q9'; known are BOOL, U8"},
        BadHeader{"dtype_type", One(R"("dtype":8)"), "number 8 as its dtype"},
        BadHeader{"negative",
                  One(R"("dtype":"U8","shape":[-8],"data_offsets":[0,8])"),
                  "negative number -8 in its shape"},
        BadHeader{"fraction", One(R"("dtype":"U8","shape":[8.5])"),
                  "number 8.5 in its shape"},
        BadHeader{"overflow",
                  One(R"("dtype":"F32","shape":[4294967296,4294967296,2],)"
                      R"("data_offsets":[0,8])"),
                  "exceeds 2^63 bytes"},
        BadHeader{"size",
                  One(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"),
                  "[0, 8] (8 bytes), but its shape [3] and dtype F32 need 12"},
        BadHeader{"backwards",
                  One(R"("dtype":"U8","shape":[8],"data_offsets":[8,0])"),
                  "end before they begin"},
        BadHeader{"past_end",
                  One(R"("dtype":"U8","shape":[9],"data_offsets":[0,9])"),
                  "only 8 bytes of data"},
        BadHeader{"far",
                  One(R"("dtype":"U8","shape":[1],)"
                      R"("data_offsets":[18446744073709551614,)"
                      R"(18446744073709551615])"),
                  "only 8 bytes of data"},
        BadHeader{"three", One(R"("data_offsets":[0,4,8])"),
                  "number 8 in its data_offsets"},
        BadHeader{"one_offset", One(R"("data_offsets":[0])"),
                  "data_offsets with 1 numbers"},
        BadHeader{"overlap",
                  R"({"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},)"
                  R"("b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
                  "'b' begins at byte 4 of the data and overlaps tensor 'a'"},
        BadHeader{"hole",
                  R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                  R"("b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
                  "a hole of 2 bytes after 2"},
        BadHeader{"tail",
                  One(R"("dtype":"U8","shape":[6],"data_offsets":[0,6])"),
                  "2 bytes after the last tensor"}),
    [](const auto& info) { return info.param.name; });

TEST(Safetensors, TruncatedDataIsNamedWithItsTensor) {
  const fs::path path = TestFile("truncated");
  WriteTensors(path, {{"weights", "U8", {64}, std::string(64, 'x')}});
  fs::resize_file(path, fs::file_size(path) - 1);
  EXPECT_THAT(OpenMessage(path),
              AllOf(HasSubstr("'weights'"), HasSubstr("truncated?")));
}

TEST(Safetensors, NoCutOfARealFileIsAcceptedOrCrashes) {
  const std::string whole = ReadText("tests/golden/qwen3/model.safetensors");
  const fs::path path = TestFile("cut");
  WriteText(path, whole);
  for (size_t size = whole.size() - 1; size > 0; size = size * 7 / 8) {
    fs::resize_file(path, size);
    EXPECT_FALSE(SafetensorsFile::Open(path).ok()) << size;
  }
}

}  // namespace
}  // namespace bullpen
