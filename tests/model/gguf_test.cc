#include "engine/model/gguf.h"

#include <filesystem>
#include <random>
#include <string>

#include "engine/model/checkpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/checkpoint_writer.h"
#include "tests/fakes/gguf_writer.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint32_t kF32 = 0;
constexpr uint32_t kQ8_0 = 8;

std::string ErrorOf(const GgufBytes& file) {
  const fs::path path = ScratchPath("bad.gguf");
  WriteText(path, file.bytes());
  const absl::Status status = GgufFile::Open(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("bad.gguf"));
  return std::string(status.message());
}

absl::StatusOr<GgufFile> Opened(const GgufBytes& file) {
  const fs::path path = ScratchPath("good.gguf");
  WriteText(path, file.bytes());
  return GgufFile::Open(path);
}

TEST(Gguf, ReadsEveryValueType) {
  GgufBytes file;
  file.Start(0, 15);
  file.String("u8").Number<uint32_t>(0).Number<uint8_t>(200);
  file.String("i8").Number<uint32_t>(1).Number<int8_t>(-3);
  file.String("u16").Number<uint32_t>(2).Number<uint16_t>(60000);
  file.String("i16").Number<uint32_t>(3).Number<int16_t>(-300);
  file.Key("u32", 4000000000u);
  file.String("i32").Number<uint32_t>(5).Number<int32_t>(-70000);
  file.String("f32").Number<uint32_t>(6).Number<float>(0.5f);
  file.String("bool").Number<uint32_t>(7).Number<uint8_t>(1);
  file.Key("string", "text");
  file.String("u64").Number<uint32_t>(10).Number<uint64_t>(1ull << 40);
  file.String("i64").Number<uint32_t>(11).Number<int64_t>(-5);
  file.String("f64").Number<uint32_t>(12).Number<double>(0.25);
  file.String("strings").Number<uint32_t>(9).Number<uint32_t>(8);
  file.Number<uint64_t>(2).String("a").String("");
  file.String("ints").Number<uint32_t>(9).Number<uint32_t>(5);
  file.Number<uint64_t>(2).Number<int32_t>(-1).Number<int32_t>(7);
  file.String("floats").Number<uint32_t>(9).Number<uint32_t>(6);
  file.Number<uint64_t>(1).Number<float>(1.5f);
  const auto read = Opened(file);
  ASSERT_TRUE(read.ok()) << read.status();
  const GgufMetadata wanted = {{"u8", int64_t{200}},
                               {"i8", int64_t{-3}},
                               {"u16", int64_t{60000}},
                               {"i16", int64_t{-300}},
                               {"u32", int64_t{4000000000}},
                               {"i32", int64_t{-70000}},
                               {"f32", 0.5},
                               {"bool", true},
                               {"string", std::string("text")},
                               {"u64", int64_t{1} << 40},
                               {"i64", int64_t{-5}},
                               {"f64", 0.25},
                               {"strings", std::vector<std::string>{"a", ""}},
                               {"ints", std::vector<int64_t>{-1, 7}},
                               {"floats", std::vector<double>{1.5}}};
  EXPECT_EQ(read->metadata(), wanted);
}

TEST(Gguf, TurnsDimensionsRoundAndPlacesTensorsByAlignment) {
  for (const uint32_t version : {2u, 3u}) {
    GgufBytes file;
    file.Start(2, 1, version).Key("general.alignment", 64u);
    file.Tensor("b", {64, 3}, kQ8_0, 64).Tensor("a", {5}, kF32, 0);
    file.PadTo(64);
    const size_t data = file.bytes().size();
    file.Data(64 + 3 * 68);
    const auto read = Opened(file);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->version(), version);
    const TensorInfo& b = read->tensors().at("b");
    EXPECT_EQ(b.dtype, "Q8_0");
    EXPECT_EQ(b.shape, (std::vector<int64_t>{3, 64}));
    EXPECT_EQ(b.bytes, 3 * 68);
    EXPECT_EQ(b.offset, static_cast<int64_t>(data) + 64);
  }
}

TEST(Gguf, RefusesWhatIsNotGgufOfAKnownVersion) {
  EXPECT_THAT(ErrorOf(GgufBytes().Number<uint64_t>(0)), HasSubstr("GGUF"));
  EXPECT_THAT(ErrorOf(GgufBytes().Start(0, 0, 1)), HasSubstr("version 1"));
  EXPECT_THAT(ErrorOf(GgufBytes().Start(0, 0, 0x03000000)),
              HasSubstr("big-endian"));
}

TEST(Gguf, HoldsEveryLengthAgainstWhatIsLeft) {
  constexpr uint64_t kHuge = 1ull << 62;
  EXPECT_THAT(ErrorOf(GgufBytes().Start(kHuge, 0)), HasSubstr("tensors"));
  EXPECT_THAT(ErrorOf(GgufBytes().Start(0, kHuge)), HasSubstr("keys"));
  GgufBytes key;
  key.Start(0, 1).Number<uint64_t>(kHuge).Data(100);
  EXPECT_THAT(ErrorOf(key), HasSubstr("string of 4611686018427387904 bytes"));
  GgufBytes text;
  text.Start(0, 1).String("k").Number<uint32_t>(8).Number(kHuge).Data(64);
  EXPECT_THAT(ErrorOf(text), AllOf(HasSubstr("string"), HasSubstr("'k'")));
  GgufBytes array;
  array.Start(0, 1).String("k").Number<uint32_t>(9).Number<uint32_t>(4);
  array.Number(kHuge).Data(64);
  EXPECT_THAT(ErrorOf(array), AllOf(HasSubstr("array of"), HasSubstr("'k'")));
  GgufBytes nested;
  nested.Start(0, 1).String("k").Number<uint32_t>(9).Number<uint32_t>(9);
  nested.Number<uint64_t>(1).Data(64);
  EXPECT_THAT(ErrorOf(nested), HasSubstr("elements of type 9"));
  GgufBytes type;
  type.Start(0, 1).String("k").Number<uint32_t>(13).Data(64);
  EXPECT_THAT(ErrorOf(type), HasSubstr("value type 13"));
  GgufBytes twice;
  twice.Start(0, 2).Key("k", 1u).Key("k", 2u);
  EXPECT_THAT(ErrorOf(twice), HasSubstr("'k' twice"));
}

std::string TensorError(std::vector<uint64_t> dims, uint32_t type,
                        uint64_t offset) {
  GgufBytes file;
  file.Start(1, 0).Tensor("w", std::move(dims), type, offset).PadTo(32);
  file.Data(128);
  const std::string error = ErrorOf(file);
  EXPECT_THAT(error, HasSubstr("'w'"));
  return error;
}

TEST(Gguf, ChecksShapesAndOffsetsBeforeTheyAreUsed) {
  EXPECT_THAT(TensorError({}, kF32, 0), HasSubstr("0 dimensions"));
  EXPECT_THAT(TensorError({1, 1, 1, 1, 1}, kF32, 0), HasSubstr("5 dimensions"));
  EXPECT_THAT(TensorError({0}, kF32, 0), HasSubstr("product is 0"));
  EXPECT_THAT(TensorError({1ull << 40, 1ull << 40}, kF32, 0),
              HasSubstr("exceeds"));
  EXPECT_THAT(TensorError({33}, kQ8_0, 0), HasSubstr("multiple of 32"));
  EXPECT_THAT(TensorError({32}, 77, 0),
              AllOf(HasSubstr("unknown type 77"), HasSubstr("Q4_K")));
  EXPECT_THAT(TensorError({32}, kF32, 8), HasSubstr("alignment 32"));
  EXPECT_THAT(TensorError({64}, kF32, 0), HasSubstr("only 128 bytes of data"));
  EXPECT_THAT(TensorError({4}, kF32, 1ull << 63), HasSubstr("only 128 bytes"));
}

TEST(Gguf, RefusesOverlapsAndDuplicatesAndBadAlignments) {
  GgufBytes overlap;
  overlap.Start(2, 0).Tensor("a", {16}, kF32, 0).Tensor("b", {8}, kF32, 32);
  EXPECT_THAT(ErrorOf(overlap.PadTo(32).Data(64)),
              AllOf(HasSubstr("'a'"), HasSubstr("'b'"), HasSubstr("overlaps")));
  GgufBytes twice;
  twice.Start(2, 0).Tensor("a", {8}, kF32, 0).Tensor("a", {8}, kF32, 32);
  EXPECT_THAT(ErrorOf(twice.PadTo(32).Data(64)), HasSubstr("twice"));
  for (const uint32_t alignment : {0u, 24u, 1u << 30}) {
    EXPECT_THAT(
        ErrorOf(GgufBytes().Start(0, 1).Key("general.alignment", alignment)),
        HasSubstr("power of two"));
  }
}

// Cuts and flips of a real file give an error or a checked file, never more.
TEST(Gguf, DamagedFilesAreRefusedOrWhole) {
  const std::string whole = ReadText("tests/golden/qwen3_moe/model.mixed.gguf");
  const fs::path path = ScratchPath("damaged.gguf");
  std::mt19937 random(20261122);
  for (int round = 0; round < 400; ++round) {
    std::string bytes = whole;
    if (round % 4 == 0) {
      bytes.resize(random() % bytes.size());
    } else {
      for (int i = 0; i < 3; ++i) {
        bytes[random() % 4096] = static_cast<char>(random());
      }
    }
    WriteText(path, bytes);
    const auto opened = GgufFile::Open(path);
    if (!opened.ok()) continue;
    for (const auto& [name, info] : opened->tensors()) {
      ASSERT_LE(info.offset + info.bytes, static_cast<int64_t>(bytes.size()))
          << "round " << round << " tensor " << name;
    }
  }
}

GgufBytes Part(uint32_t number, uint32_t count, const std::string& tensor) {
  GgufBytes file;
  file.Start(1, 3)
      .String("split.no")
      .Number<uint32_t>(2)
      .Number(static_cast<uint16_t>(number))
      .String("split.count")
      .Number<uint32_t>(2)
      .Number(static_cast<uint16_t>(count))
      .Key("split.tensors.count", 2u);
  return file.Tensor(tensor, {8}, kF32, 0).PadTo(32).Data(32);
}

TEST(Gguf, SplitFilesOpenFromAnyOfThem) {
  const fs::path dir = ScratchPath("split");
  MakeEmpty(dir);
  const fs::path first = dir / "m-00001-of-00002.gguf";
  const fs::path second = dir / "m-00002-of-00002.gguf";
  WriteText(first, Part(0, 2, "a").bytes());
  EXPECT_THAT(std::string(OpenGgufSplit(first).status().message()),
              HasSubstr("m-00002-of-00002.gguf is not there"));
  WriteText(second, Part(0, 2, "b").bytes());
  EXPECT_THAT(std::string(OpenGgufSplit(first).status().message()),
              HasSubstr("its name says otherwise"));
  WriteText(second, Part(1, 2, "b").bytes());
  for (const fs::path& path : {first, second}) {
    const auto files = OpenGgufSplit(path);
    ASSERT_TRUE(files.ok()) << files.status();
    ASSERT_EQ(files->size(), 2u);
    EXPECT_TRUE((*files)[0].tensors().contains("a"));
    EXPECT_TRUE((*files)[1].tensors().contains("b"));
  }
  fs::rename(first, dir / "other.gguf");
  EXPECT_THAT(std::string(OpenGgufSplit(dir / "other.gguf").status().message()),
              HasSubstr("-00001-of-00002.gguf"));
}

TEST(GgufModel, NamesAnUnknownArchitectureAndListsTheKnown) {
  const fs::path path = ScratchPath("arch.gguf");
  WriteText(
      path,
      GgufBytes().Start(0, 1).Key("general.architecture", "rwkv").bytes());
  const absl::Status status = Checkpoint::Open(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("'rwkv'"), HasSubstr("qwen3moe")));
}

TEST(GgufModel, NamesAMissingKey) {
  const fs::path path = ScratchPath("key.gguf");
  WriteText(
      path,
      GgufBytes().Start(0, 1).Key("general.architecture", "qwen3moe").bytes());
  EXPECT_THAT(std::string(Checkpoint::Open(path).status().message()),
              HasSubstr("no metadata key qwen3moe."));
}

// Rows of q and k move in pairs within a head, so heads must fit the matrix.
TEST(GgufModel, RefusesHeadsThatTheirMatricesDoNotHave) {
  const fs::path path = ScratchPath("heads.gguf");
  const auto error = [&](uint32_t head_dim) {
    GgufBytes file;
    file.Start(1, 8)
        .Key("general.architecture", "llama")
        .Key("llama.vocab_size", 8)
        .Key("llama.block_count", 1)
        .Key("llama.context_length", 8)
        .Key("llama.embedding_length", 8)
        .Key("llama.attention.head_count", 2)
        .Key("llama.attention.key_length", head_dim)
        .Key("llama.attention.value_length", head_dim)
        .Tensor("blk.0.attn_q.weight", {8, 6}, kF32, 0)
        .PadTo(32)
        .Data(8 * 6 * 4);
    WriteText(path, file.bytes());
    return std::string(Checkpoint::Open(path).status().message());
  };
  for (const uint32_t head_dim : {0u, 1u, 3u, 4u, 8u, 4000000000u}) {
    EXPECT_THAT(error(head_dim), HasSubstr("attn_q.weight has 6 rows"))
        << head_dim;
  }
  EXPECT_THAT(error(2), Not(HasSubstr("attn_q.weight")));
}

TEST(GgufModel, ADirectoryWithOneGgufIsThatModel) {
  const fs::path dir = ScratchPath("only");
  MakeEmpty(dir);
  fs::copy("tests/golden/olmoe/model.q8_0.gguf", dir / "m.gguf");
  const auto checkpoint = Checkpoint::Open(dir);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->config()["model_type"], "olmoe");
}

}  // namespace
}  // namespace bullpen
