#include "engine/model/source_window.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/checkpoint_writer.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr int64_t kTensorBytes = int64_t{11} << 20;

char At(int64_t i) { return static_cast<char>(i * 31 + i / 251); }

// A checkpoint of one file that holds one tensor of known bytes.
class ReadAheadTest : public ::testing::Test {
 protected:
  ReadAheadTest() : dir_(ScratchPath("read_ahead")) {
    MakeEmpty(dir_);
    WriteText(dir_ / "config.json", R"({"model_type": "qwen3"})");
    std::string bytes(static_cast<size_t>(kTensorBytes), '\0');
    for (int64_t i = 0; i < kTensorBytes; ++i) bytes[i] = At(i);
    WriteTensors(dir_ / "model.safetensors",
                 {{"one", "F16", {kTensorBytes / 2}, bytes}});
    auto opened = Checkpoint::Open(dir_);
    EXPECT_TRUE(opened.ok()) << opened.status();
    checkpoint_.emplace(*std::move(opened));
    begin_ = checkpoint_->tensors().at("one").info.offset;
  }
  ~ReadAheadTest() override { fs::remove_all(dir_); }

  // Of the tensor.
  SourceRange Range(int64_t first, int64_t bytes) const {
    return {.file = 0, .offset = begin_ + first, .bytes = bytes};
  }
  static bool Holds(const SourceWindow& window, const SourceRange& range,
                    int64_t first) {
    const std::byte* const bytes = window.Find(range);
    if (bytes == nullptr) return false;
    for (int64_t i = 0; i < range.bytes; ++i) {
      if (static_cast<char>(bytes[i]) != At(first + i)) return false;
    }
    return true;
  }

  const fs::path dir_;
  std::optional<Checkpoint> checkpoint_;
  int64_t begin_ = 0;
};

TEST_F(ReadAheadTest, WindowHoldsItsRangesWhateverTheirAlignment) {
  ReadAhead ahead(*checkpoint_);
  const std::vector<int64_t> firsts = {0,    1,         4095,
                                       5000, 3'000'001, kTensorBytes - 7};
  for (const int64_t first : firsts) {
    for (const int64_t bytes : {int64_t{1}, int64_t{7}, kTensorBytes - first}) {
      if (first + bytes > kTensorBytes) continue;
      ASSERT_TRUE(ahead.Begin({Range(first, bytes)}).ok());
      const auto window = ahead.Next();
      ASSERT_TRUE(window.ok()) << window.status();
      EXPECT_TRUE(Holds(**window, Range(first, bytes), first))
          << bytes << " at " << first;
    }
  }
}

TEST_F(ReadAheadTest, WindowsComeInTheOrderInWhichTheyWereBegun) {
  ReadAhead ahead(*checkpoint_);
  std::vector<int64_t> begun;
  for (int64_t next = 0, given = 0; given < 50; ++given) {
    for (; ahead.HasRoom() && next < 50; ++next) {
      // Scattered, overlapping, and every fifth like the one before it.
      const int64_t first = (next - (next % 5 == 4 ? 1 : 0)) * 200'003;
      begun.push_back(first);
      ASSERT_TRUE(ahead
                      .Begin({Range(first, 100'000), Range(first + 50, 99),
                              Range(first + 1'000'000, 1000)})
                      .ok());
    }
    const auto window = ahead.Next();
    ASSERT_TRUE(window.ok()) << window.status();
    const int64_t first = begun[given];
    EXPECT_TRUE(Holds(**window, Range(first, 100'000), first)) << given;
    EXPECT_TRUE(
        Holds(**window, Range(first + 1'000'000, 1000), first + 1'000'000))
        << given;
    EXPECT_EQ((*window)->Find(Range(first + 500'000, 10)), nullptr) << given;
  }
}

TEST_F(ReadAheadTest, FileThatBecameShorterIsNamed) {
  ReadAhead ahead(*checkpoint_);
  fs::resize_file(dir_ / "model.safetensors", 1'000'000);
  ASSERT_TRUE(ahead.Begin({Range(2'000'000, 10)}).ok());
  const auto window = ahead.Next();
  EXPECT_EQ(window.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(window.status().message()),
              HasSubstr("model.safetensors ends before offset"));
}

}  // namespace
}  // namespace bullpen
