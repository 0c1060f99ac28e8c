#include "engine/experts/trace_file.h"

#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/xxh3.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

using ::testing::AllOf;
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
    auto writer = TraceWriter::Create(path_, {.experts = trace.experts(),
                                              .expert_bytes = bytes,
                                              .token_ids = trace.vocab() > 0});
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

TEST_F(TraceFileTest, TokenIdsAreKeptWhereTheyWereRecorded) {
  RoutingTrace trace(8, {100, 100});
  const int32_t experts[] = {3, 5};
  const float weights[] = {0.5f, 0.25f};
  for (const int32_t token : {7, 151935, 0}) {
    for (int32_t layer = 0; layer < 2; ++layer) {
      ASSERT_TRUE(
          trace.Add({.layer = layer, .token = token}, experts, weights).ok());
    }
  }
  EXPECT_EQ(trace.vocab(), 151936);
  EXPECT_FALSE(trace.Add({.token = -1}, experts, weights).ok());
  for (const std::string& bytes : {Written(trace), trace.ToCsv()}) {
    const auto again = ParseTrace(bytes);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->vocab(), trace.vocab());
    ASSERT_EQ(again->choices().size(), 6u);
    EXPECT_EQ(again->choices()[2].token, 151935);
    EXPECT_EQ(again->choices()[5].token, 0);
  }
  EXPECT_EQ(Recorded().vocab(), 0);
}

TEST_F(TraceFileTest, AnIdIsWrittenOnlyWhereIdsAreAskedFor) {
  const int64_t bytes[] = {100};
  const int32_t experts[] = {3};
  const float weights[] = {1};
  auto writer =
      TraceWriter::Create(path_, {.experts = 8, .expert_bytes = bytes});
  ASSERT_TRUE(writer.ok());
  writer->Add({.token = 42}, experts, weights);
  ASSERT_TRUE(writer->Close().ok());
  const auto again = ReadTrace(path_);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->vocab(), 0);
  EXPECT_EQ(again->choices()[0].token, -1);
}

TEST(RoutingTrace, TheColumnOfTokenIdsIsFoundByItsName) {
  const std::string head =
      "# route_trace v1\n"
      "turn,phase,step,layer,slot,expert,weight,residency,token_id,other\n";
  const auto trace = RoutingTrace::ParseCsv(
      head + "0,0,0,0,0,1,1,x,17,y\n0,0,0,0,1,2,1,x,17,y\n");
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->choices()[0].token, 17);
  for (const char* row : {"0,0,0,0,0,1,1,x,-2,y\n", "0,0,0,0,0,1,1\n",
                          "0,0,0,0,0,1,1,x,9999999999,y\n",
                          "0,0,0,0,0,1,1,x,17,y\n0,0,0,0,1,2,1,x,18,y\n"}) {
    EXPECT_TRUE(
        absl::IsInvalidArgument(RoutingTrace::ParseCsv(head + row).status()))
        << row;
  }
}

TEST(RoutingTrace, CountsBehindTheRowsMustHoldForThem) {
  const std::string rows =
      "# route_trace v1\nturn,phase,step,layer,slot,expert,weight\n"
      "0,1,0,500,0,7,0.5\n0,1,1,3,0,2,0.5\n";
  for (const auto& [comment, message] :
       {std::pair("# n_layer=500\n",
                  "line 5: n_layer is \"500\", not a number from 501 to"),
        std::pair("# n_layer=501 n_expert=7\n",
                  "line 5: n_expert is \"7\", not a number from 8 to")}) {
    const absl::Status status = RoutingTrace::ParseCsv(rows + comment).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
  const auto trace =
      RoutingTrace::ParseCsv(rows + "# n_layer=501 n_expert=8\n");
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->layers(), 501);
  EXPECT_EQ(trace->experts(), 8);
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

// A binary trace of one layer of so many experts and one record.
std::string BinaryOf(uint32_t experts) {
  std::string bytes = "BPTRACE1";
  const auto put = [&](std::string& out, auto value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  const auto checksum = [](const std::string& text) {
    return uint64_t{XXH3_64bits(text.data(), text.size())};
  };
  put(bytes, uint32_t{1});
  put(bytes, experts);
  put(bytes, int64_t{100});
  put(bytes, checksum(bytes));
  std::string record(11, '\0');  // turn, step, layer and phase
  put(record, uint8_t{1});
  put(record, uint16_t{3});
  put(record, 1.0f);
  put(bytes, static_cast<uint32_t>(record.size()));
  put(bytes, checksum(record));
  return bytes + record;
}

std::string CsvOf(uint32_t experts) {
  return absl::StrCat("# route_trace v1\n# n_layer=1 n_expert=", experts,
                      "\nturn,phase,step,layer,slot,expert,weight\n"
                      "0,0,0,0,0,3,1\n");
}

// Tables of each pair of experts must fit into memory.
TEST(RoutingTrace, HasNoMoreExpertsThanAModelMayHave) {
  for (const auto& make : {BinaryOf, CsvOf}) {
    const auto trace = ParseTrace(make(1024));
    ASSERT_TRUE(trace.ok()) << trace.status();
    EXPECT_EQ(trace->experts(), 1024);
    for (const uint32_t experts : {1025u, 65535u}) {
      const absl::Status status = ParseTrace(make(experts)).status();
      EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
      EXPECT_THAT(std::string(status.message()),
                  AllOf(HasSubstr(std::to_string(experts)), HasSubstr("1024")));
    }
  }
}

TEST(RoutingTrace, TheTablesOfAllItsLayersMustFitIntoMemory) {
  const std::string rows =
      "turn,phase,step,layer,slot,expert,weight\n0,0,0,0,0,3,1\n";
  const auto parse = [&](const char* counts) {
    return RoutingTrace::ParseCsv(
        absl::StrCat("# route_trace v1\n# ", counts, "\n", rows));
  };
  EXPECT_TRUE(parse("n_layer=256 n_expert=1024").ok());
  EXPECT_TRUE(parse("n_layer=4096 n_expert=256").ok());
  const absl::Status csv = parse("n_layer=257 n_expert=1024").status();
  EXPECT_TRUE(absl::IsInvalidArgument(csv)) << csv;
  EXPECT_THAT(std::string(csv.message()),
              AllOf(HasSubstr("257 layers of 1024"), HasSubstr("268435456")));
  std::string binary = "BPTRACE1";
  for (const uint32_t count : {257u, 1024u}) {
    binary.append(reinterpret_cast<const char*>(&count), sizeof(count));
  }
  EXPECT_THAT(std::string(ParseTrace(binary).status().message()),
              AllOf(HasSubstr("257 layers of 1024"), HasSubstr("268435456")));
}

TEST_F(TraceFileTest, ABinaryRecordBeyondTheHeaderIsRefused) {
  const int64_t bytes[] = {100};
  const float weights[] = {1};
  for (const auto& [layer, expert] : {std::pair(500, 3), std::pair(0, 8)}) {
    std::filesystem::remove(path_);
    auto writer =
        TraceWriter::Create(path_, {.experts = 8, .expert_bytes = bytes});
    ASSERT_TRUE(writer.ok());
    writer->Add({.layer = layer}, std::span(&expert, 1), weights);
    ASSERT_TRUE(writer->Close().ok());
    EXPECT_TRUE(absl::IsInvalidArgument(ReadTrace(path_).status())) << layer;
  }
}

TEST_F(TraceFileTest, AnExistingFileIsKept) {
  ASSERT_TRUE(WriteNewFile(path_, "precious").ok());
  const int64_t bytes[] = {1};
  EXPECT_TRUE(absl::IsAlreadyExists(
      TraceWriter::Create(path_, {.experts = 4, .expert_bytes = bytes})
          .status()));
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
