#include "tools/options.h"

#include <cmath>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/model_flags.h"

namespace bullpen {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ParseIdsTest, ReadsIdsWithOrWithoutBlanks) {
  EXPECT_THAT(*ParseIds("1, 2,3"), ElementsAre(1, 2, 3));
  EXPECT_THAT(*ParseIds("-4"), ElementsAre(-4));
}

TEST(ParseIdsTest, NamesWhatIsNoId) {
  for (const std::string text : {"", "1,,2", "1,x", "99999999999", "1.5"}) {
    const auto ids = ParseIds(text);
    EXPECT_TRUE(absl::IsInvalidArgument(ids.status())) << text;
    EXPECT_THAT(std::string(ids.status().message()), HasSubstr("--ids"));
  }
}

TEST(BetweenTest, TakesNumbersWithinItsLimitsAndNamesTheOthers) {
  double share = 0;
  CLI::App app;
  app.add_option("--share", share)->check(Between(0.25, 1));
  for (const std::string text : {"0.25", "1", "5e-1"}) {
    EXPECT_NO_THROW(app.parse("--share " + text)) << text;
  }
  for (const std::string text : {"0.2", "1.1", "-1", "nan", "inf", "x"}) {
    try {
      app.parse("--share " + text);
      ADD_FAILURE() << text << " was taken";
    } catch (const CLI::ParseError& error) {
      EXPECT_EQ(std::string(error.what()),
                "--share: must be at least 0.25 and at most 1, got " + text);
    }
  }
}

TEST(ModelFlagsTest, BecomeTheModelsOptions) {
  ModelFlags flags;
  flags.memory.count = 100;
  flags.kv_memory.count = 10;
  flags.expert_memory.count = 20;
  flags.threads = 3;
  flags.context = 512;
  flags.numa = "isolate";
  flags.verify_experts = "once";
  const auto options = ToModelOptions(flags);
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->memory.total_bytes, 100);
  EXPECT_EQ(options->memory.kv_bytes, 10);
  EXPECT_EQ(options->memory.expert_bytes, 20);
  EXPECT_EQ(options->threads, 3);
  EXPECT_EQ(options->context, 512);
  EXPECT_EQ(options->numa, "isolate");
  EXPECT_EQ(options->verify_experts, "once");
}

TEST(ModelFlagsTest, OutOfRangeNamesTheFlagTheValueAndTheLimit) {
  ModelFlags flags;
  flags.max_batch_tokens = 0;
  const std::string message(ToModelOptions(flags).status().message());
  EXPECT_EQ(message,
            "--max-batch-tokens must be at least 1 and at most 65536, got 0");
}

TEST(ModelFlagsTest, AHalfLifeIsThatOfDecayedFrequency) {
  ModelFlags flags;
  flags.half_life = 16;
  ASSERT_TRUE(ToModelOptions(flags).ok());
  EXPECT_EQ(ToModelOptions(flags)->half_life_tokens, 16);
  flags.policy = "lru";
  EXPECT_EQ(ToModelOptions(flags).status().message(),
            "--half-life 16 needs --policy crf, not lru");
  flags.policy = "crf";
  for (const double value : {-1.0, std::nan(""), 2e9}) {
    flags.half_life = value;
    EXPECT_TRUE(absl::IsInvalidArgument(ToModelOptions(flags).status()))
        << value;
  }
}

TEST(ModelFlagsTest, ParseFromTheCommandLine) {
  CLI::App app;
  ModelFlags flags;
  AddFlags(app, flags, kModelFlagsGroup);
  app.parse("--memory 1.5GiB --kv-type f16 --max-sequences 4");
  EXPECT_EQ(flags.memory.count, int64_t{3} << 29);
  EXPECT_EQ(flags.kv_type, "f16");
  EXPECT_EQ(flags.max_sequences, 4);
  EXPECT_THROW(app.parse("--memory lots"), CLI::ValidationError);
}

}  // namespace
}  // namespace bullpen
