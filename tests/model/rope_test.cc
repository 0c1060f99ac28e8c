// Frequencies against the published models' values.

#include "engine/model/rope.h"

#include "gtest/gtest.h"

namespace bullpen {
namespace {

TEST(RopeTest, GptOssYarnWithoutTruncation) {
  const Rope rope = MakeRope({.theta = 150000,
                              .rotary_dim = 64,
                              .scaling = RopeScaling::kYarn,
                              .factor = 32,
                              .original_context = 4096,
                              .truncate = false});
  ASSERT_EQ(rope.early.frequency.size(), 32u);
  EXPECT_NEAR(rope.early.factor, 1.34657359, 1e-7);
  EXPECT_NEAR(rope.early.frequency[1], 0.689044306, 1e-7);
  EXPECT_NEAR(rope.early.frequency[9], 0.0317056962, 1e-8);
  EXPECT_NEAR(rope.early.frequency[12], 0.00679495949, 1e-9);
  EXPECT_NEAR(rope.early.frequency[15], 0.0010526021, 1e-9);
  EXPECT_NEAR(rope.early.frequency[17], 0.000129318701, 1e-10);
  EXPECT_NEAR(rope.early.frequency[31], 3.02351143e-07, 1e-13);
}

TEST(RopeTest, DeepSeekYarnTruncates) {
  const Rope rope = MakeRope({.theta = 10000,
                              .rotary_dim = 64,
                              .scaling = RopeScaling::kYarn,
                              .factor = 40,
                              .original_context = 4096,
                              .mscale = 0.707,
                              .mscale_all_dim = 0.707});
  EXPECT_EQ(rope.early.factor, 1.0f);
  EXPECT_NEAR(rope.early.frequency[11], 0.0390069266, 1e-8);
  EXPECT_NEAR(rope.early.frequency[15], 0.00833450895, 1e-9);
  EXPECT_NEAR(rope.early.frequency[20], 0.000790569415, 1e-10);
  EXPECT_NEAR(rope.early.frequency[31], 3.33380358e-06, 1e-12);
}

TEST(RopeTest, Llama3KeepsShortWavesAndStretchesLongOnes) {
  const RopeConfig plain{.theta = 500000, .rotary_dim = 128};
  RopeConfig stretched = plain;
  stretched.scaling = RopeScaling::kLlama3;
  stretched.factor = 8;
  stretched.original_context = 8192;
  const Rope before = MakeRope(plain);
  const Rope after = MakeRope(stretched);
  EXPECT_EQ(after.early.frequency[0], before.early.frequency[0]);
  EXPECT_FLOAT_EQ(after.early.frequency[63], before.early.frequency[63] / 8);
  EXPECT_EQ(after.early.factor, 1.0f);
}

const RopeConfig kLongRope{.theta = 10000,
                           .rotary_dim = 4,
                           .scaling = RopeScaling::kLong,
                           .original_context = 128,
                           .short_divisors = {1, 2},
                           .long_divisors = {4, 5},
                           .short_mscale = 1.25,
                           .long_mscale = 1.5};

TEST(RopeTest, LongRopeChangesItsDivisorsBeyondTheOriginalContext) {
  const Rope rope = MakeRope(kLongRope);
  for (const int64_t prompt : {1, 128}) {
    EXPECT_FLOAT_EQ(rope.at(127, prompt).frequency[1], 0.01f / 2);
    EXPECT_EQ(rope.at(127, prompt).factor, 1.25f);
    EXPECT_FLOAT_EQ(rope.at(128, prompt).frequency[0], 1.0f / 4);
    EXPECT_FLOAT_EQ(rope.at(128, prompt).frequency[1], 0.01f / 5);
    EXPECT_EQ(rope.at(128, prompt).factor, 1.5f);
  }
}

TEST(RopeTest, LongRopeOfAPromptBeyondTheOriginalContextIsLateThroughout) {
  const Rope rope = MakeRope(kLongRope);
  for (const int64_t position : {0, 127, 128, 500}) {
    EXPECT_EQ(&rope.at(position, 129), &rope.late);
  }
}

}  // namespace
}  // namespace bullpen
