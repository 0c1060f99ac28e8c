#include "engine/experts/trace_file.h"

#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>

#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

using ::testing::HasSubstr;

class TraceFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::path(testing::TempDir()) / "trace_file_test.trace";
    std::filesystem::remove(path_);
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::string Written(const RoutingTrace& trace) {
    std::vector<int64_t> bytes;
    for (int32_t l = 0; l < trace.layers(); ++l) {
      bytes.push_back(trace.expert_bytes(l));
    }
    auto writer = TraceWriter::Create(path_, trace.experts(), bytes);
    EXPECT_TRUE(writer.ok()) << writer.status();
    for (const RoutingTrace::Choice& choice : trace.choices()) {
      writer->Add(choice, trace.chosen(choice), trace.weights(choice));
    }
    EXPECT_TRUE(writer->Close().ok());
    return *ReadFile(path_, 1 << 24);
  }

  std::filesystem::path path_;
};

RoutingTrace Recorded() {
  return *ReadTrace("tests/golden/traces/qwen3-30b-a3b.12-layers.csv");
}

TEST_F(TraceFileTest, BothFormsHoldTheSame) {
  const RoutingTrace trace = Recorded();
  const std::string binary = Written(trace);
  const std::string csv = trace.ToCsv();
  EXPECT_LT(binary.size(), csv.size() / 2);
  for (const std::string& bytes : {binary, csv}) {
    const auto again = ParseTrace(bytes);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->layers(), trace.layers());
    EXPECT_EQ(again->experts(), trace.experts());
    EXPECT_EQ(again->top_k(), trace.top_k());
    EXPECT_EQ(again->expert_bytes(3), trace.expert_bytes(3));
    EXPECT_EQ(again->ToCsv(), csv);
  }
}

TEST_F(TraceFileTest, DamageIsRefusedWithItsPlace) {
  const std::string good = Written(Recorded());
  std::mt19937_64 random(1);
  for (int i = 0; i < 2000; ++i) {
    std::string bad = good;
    const size_t at = random() % bad.size();
    bad[at] = static_cast<char>(bad[at] ^ (1 << random() % 8));
    EXPECT_TRUE(absl::IsInvalidArgument(ParseTrace(bad).status())) << at;
  }
  for (int i = 0; i < 2000; ++i) {
    const size_t size = random() % good.size();
    const auto cut = ParseTrace(std::string_view(good).substr(0, size));
    EXPECT_FALSE(cut.ok()) << size;
  }
  EXPECT_THAT(
      std::string(
          ParseTrace(good.substr(0, good.size() - 1)).status().message()),
      HasSubstr("ends in the middle of a block"));
}

TEST_F(TraceFileTest, AnExistingFileIsKept) {
  ASSERT_TRUE(WriteNewFile(path_, "precious").ok());
  const int64_t bytes[] = {1};
  EXPECT_TRUE(
      absl::IsAlreadyExists(TraceWriter::Create(path_, 4, bytes).status()));
  EXPECT_EQ(*ReadFile(path_, 100), "precious");
}

TEST(RoutingTraceAdd, RefusesWhatNoModelCouldChoose) {
  RoutingTrace trace(4, {0, 0});
  const int32_t twice[] = {1, 1};
  const int32_t beyond[] = {4, 0};
  const int32_t good[] = {3, 0};
  const float weights[] = {0.5f, 0.5f};
  EXPECT_FALSE(trace.Add({.layer = 0}, twice, weights).ok());
  EXPECT_FALSE(trace.Add({.layer = 0}, beyond, weights).ok());
  EXPECT_FALSE(trace.Add({.layer = 2}, good, weights).ok());
  EXPECT_FALSE(trace.Add({.layer = 0}, good, {}).ok());
  EXPECT_TRUE(trace.choices().empty());
  EXPECT_TRUE(trace.Add({.layer = 1}, good, weights).ok());
  EXPECT_EQ(trace.top_k(), 2);
}

}  // namespace
}  // namespace bullpen
