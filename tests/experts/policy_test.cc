#include "engine/experts/policy.h"

#include <array>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace bullpen {
namespace {

constexpr std::array<int32_t, 3> kAll = {0, 1, 2};

TEST(EvictionPolicy, ScoreHalvesWithEachHalfLife) {
  EvictionPolicy policy(1, {.half_life_tokens = 8});
  policy.Use(0, 10, 3);
  EXPECT_DOUBLE_EQ(policy.Score(0, 10), 3);
  EXPECT_DOUBLE_EQ(policy.Score(0, 18), 1.5);
  policy.Use(0, 18);
  EXPECT_DOUBLE_EQ(policy.Score(0, 18), 2.5);
  EXPECT_DOUBLE_EQ(policy.Score(0, 34), 0.625);
}

TEST(EvictionPolicy, FrequentBeatsRecentWithinTheHalfLife) {
  EvictionPolicy crf(3, {.half_life_tokens = 16});
  EvictionPolicy lru(3, {.kind = PolicyKind::kLru});
  for (EvictionPolicy* policy : {&crf, &lru}) {
    for (int64_t now = 1; now <= 6; ++now) policy->Use(0, now);
    policy->Use(1, 7);
    policy->Use(2, 8);
  }
  EXPECT_EQ(crf.Victim(kAll), 1);
  EXPECT_EQ(lru.Victim(kAll), 0);
}

TEST(EvictionPolicy, OldFrequencyIsForgotten) {
  EvictionPolicy crf(3, {.half_life_tokens = 16});
  EvictionPolicy lfu(3, {.kind = PolicyKind::kLfu});
  for (EvictionPolicy* policy : {&crf, &lfu}) {
    policy->Use(0, 1, 100);
    policy->Use(1, 200, 2);
    policy->Use(2, 201, 3);
  }
  EXPECT_EQ(crf.Victim(kAll), 0);
  EXPECT_EQ(lfu.Victim(kAll), 1);
}

TEST(EvictionPolicy, TiesGoToTheLeastRecentThenTheLowestIndex) {
  EvictionPolicy policy(3, {.kind = PolicyKind::kLfu});
  EXPECT_EQ(policy.Victim(kAll), 0);
  policy.Use(2, 1);
  policy.Use(0, 2);
  policy.Use(1, 2);
  EXPECT_EQ(policy.Victim(kAll), 2);
  policy.Use(2, 3);
  policy.Use(1, 3);
  policy.Use(0, 3);
  EXPECT_EQ(policy.Victim(kAll), 2);
}

TEST(EvictionPolicy, NeverUsedGoesFirst) {
  EvictionPolicy policy(3, {});
  policy.Use(0, 0);
  policy.Use(2, 0);
  EXPECT_EQ(policy.Victim(kAll), 1);
}

TEST(EvictionPolicy, FixedScoresDoNotMoveWithUse) {
  EvictionPolicy policy(3, {.kind = PolicyKind::kStatic});
  policy.SetScore(0, 5);
  policy.SetScore(1, 1);
  policy.SetScore(2, 3);
  policy.Use(1, 1, 1000);
  EXPECT_EQ(policy.Victim(kAll), 1);
  EXPECT_EQ(policy.Score(0, 7), 5);
}

TEST(EvictionPolicy, StaysExactOverATrillionTokens) {
  // Against the definition, summed in long double over the last uses.
  std::mt19937_64 random(7);
  for (const double half_life : {0.5, 8.0, 17.3, 1e6}) {
    EvictionPolicy policy(1, {.half_life_tokens = half_life});
    long double expected = 0;
    int64_t now = 0;
    for (int i = 0; i < 20000; ++i) {
      const int64_t step = i % 5000 == 4999
                               ? int64_t{1} << 38
                               : static_cast<int64_t>(random() % 40);
      now += step;
      expected *= std::exp2(-static_cast<long double>(step) / half_life);
      const double count = static_cast<double>(1 + random() % 256);
      policy.Use(0, now, count);
      expected += count;
      ASSERT_NEAR(policy.Score(0, now) / static_cast<double>(expected), 1, 1e-9)
          << "half-life " << half_life << ", use " << i;
    }
  }
}

TEST(EvictionPolicy, OrderIsTheSameWhenAskedLater) {
  std::mt19937_64 random(11);
  EvictionPolicy policy(32, {.half_life_tokens = 5});
  std::vector<int32_t> all(32);
  for (int32_t i = 0; i < 32; ++i) all[i] = i;
  int64_t now = 0;
  for (int i = 0; i < 5000; ++i) {
    now += static_cast<int64_t>(random() % 3);
    policy.Use(static_cast<int32_t>(random() % 32), now);
    const int32_t victim = policy.Victim(all);
    for (const int32_t other : all) {
      ASSERT_LE(policy.Score(victim, now), policy.Score(other, now)) << i;
    }
  }
}

}  // namespace
}  // namespace bullpen
