#include "engine/experts/policy.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace bullpen {
namespace {

constexpr std::array<int32_t, 3> kAll = {0, 1, 2};

TEST(EvictionPolicy, ScoreHalvesWithEachHalfLife) {
  EvictionPolicy policy(1, 1, {.half_life_tokens = 8});
  policy.Use(0, 10, 3);
  EXPECT_DOUBLE_EQ(policy.Score(0, 10), 3);
  EXPECT_DOUBLE_EQ(policy.Score(0, 18), 1.5);
  policy.Use(0, 18);
  EXPECT_DOUBLE_EQ(policy.Score(0, 18), 2.5);
  EXPECT_DOUBLE_EQ(policy.Score(0, 34), 0.625);
}

TEST(EvictionPolicy, FrequentBeatsRecentWithinTheHalfLife) {
  EvictionPolicy crf(3, 2, {.half_life_tokens = 16});
  EvictionPolicy lru(3, 2, {.kind = PolicyKind::kLru});
  for (EvictionPolicy* policy : {&crf, &lru}) {
    for (int64_t now = 1; now <= 6; ++now) policy->Use(0, now);
    policy->Use(1, 7);
    policy->Use(2, 8);
  }
  EXPECT_EQ(crf.Victim(kAll), 1);
  EXPECT_EQ(lru.Victim(kAll), 0);
}

TEST(EvictionPolicy, OldFrequencyIsForgotten) {
  EvictionPolicy crf(3, 2, {.half_life_tokens = 16});
  EvictionPolicy lfu(3, 2, {.kind = PolicyKind::kLfu});
  for (EvictionPolicy* policy : {&crf, &lfu}) {
    policy->Use(0, 1, 100);
    policy->Use(1, 200, 2);
    policy->Use(2, 201, 3);
  }
  EXPECT_EQ(crf.Victim(kAll), 0);
  EXPECT_EQ(lfu.Victim(kAll), 1);
}

TEST(EvictionPolicy, TiesGoToTheLeastRecentThenTheLowestIndex) {
  EvictionPolicy policy(3, 2, {.kind = PolicyKind::kLfu});
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
  EvictionPolicy policy(3, 2, {});
  policy.Use(0, 0);
  policy.Use(2, 0);
  EXPECT_EQ(policy.Victim(kAll), 1);
}

TEST(EvictionPolicy, FixedScoresDoNotMoveWithUse) {
  EvictionPolicy policy(3, 2, {.kind = PolicyKind::kStatic});
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
    EvictionPolicy policy(1, 1, {.half_life_tokens = half_life});
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
  EvictionPolicy policy(32, 8, {.half_life_tokens = 5});
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

TEST(EvictionPolicy, UsesOfAStepMayComeOneByOne) {
  EvictionPolicy together(16, 8, {});
  EvictionPolicy one_by_one(16, 8, {});
  for (int64_t now = 2; now <= 400; now += 2) {
    for (int i = 0; i < 3; ++i) {
      const auto expert = static_cast<int32_t>((now + 5 * i) % 16);
      together.Use(expert, now, 2);
      one_by_one.Use(expert, now);
      one_by_one.Use(expert, now);
    }
    for (int32_t e = 0; e < 16; ++e) {
      ASSERT_EQ(together.Score(e, now), one_by_one.Score(e, now)) << now;
    }
  }
}

// A layer of 32 experts and 8 slots, run through a policy.
class OneLayer {
 public:
  explicit OneLayer(const PolicyConfig& config) : policy_(32, 8, config) {}

  void Step(const std::vector<int32_t>& experts) {
    ++now_;
    for (const int32_t expert : experts) policy_.Use(expert, now_);
    for (const int32_t expert : experts) {
      if (std::ranges::count(held_, expert) > 0) {
        ++hits_;
        continue;
      }
      if (held_.size() == 8) {
        std::vector<int32_t> others;
        std::ranges::copy_if(held_, std::back_inserter(others), [&](int32_t e) {
          return std::ranges::count(experts, e) == 0;
        });
        std::erase(held_, policy_.Victim(others));
      }
      held_.push_back(expert);
    }
  }
  int hits() const { return hits_; }

 private:
  EvictionPolicy policy_;
  int64_t now_ = 0;
  std::vector<int32_t> held_;
  int hits_ = 0;
};

enum class Habit : uint8_t { kChanges, kLasts, kFollows };

// Draws two experts for each step.
class Steps {
 public:
  explicit Steps(Habit habit) : habit_(habit) {}

  std::vector<int32_t> Next() {
    ++step_;
    // Stays, or goes to the only other one that follows.
    if (random_() % 2 == 0) place_ = (3 * place_ + 1) % 8;
    std::vector<int32_t> experts = {Draw(), Draw()};
    while (experts[1] == experts[0]) experts[1] = Draw();
    return experts;
  }

 private:
  int32_t Draw() {
    switch (habit_) {
      case Habit::kChanges:
        return (step_ / 12 * 7 + Below(7)) % 32;
      case Habit::kLasts:
        return Below(Below(2) == 0 ? 32 : 7);
      case Habit::kFollows:
        break;
    }
    return place_ * 4 + Below(4);
  }
  int32_t Below(uint64_t limit) {
    return static_cast<int32_t>(random_() % limit);
  }

  Habit habit_;
  std::mt19937_64 random_{5};
  int32_t step_ = -1;
  int32_t place_ = 0;
};

// Where habits change with each 12 steps LRU is the better rule, where they
// last long memory is, and where each place has few that follow on it, who
// followed whom is; the rule that is chosen goes with each.
TEST(EvictionPolicy, AChosenRuleIsNearTheBestOfEach) {
  for (const Habit habit : {Habit::kChanges, Habit::kLasts, Habit::kFollows}) {
    SCOPED_TRACE(static_cast<int>(habit));
    Steps steps(habit);
    std::array<OneLayer, 4> layers = {OneLayer({.kind = PolicyKind::kLru}),
                                      OneLayer({.half_life_tokens = 32}),
                                      OneLayer({.half_life_tokens = 8}),
                                      OneLayer({})};
    for (int step = 0; step < 3000; ++step) {
      const std::vector<int32_t> experts = steps.Next();
      for (OneLayer& layer : layers) layer.Step(experts);
    }
    const auto [lru, slow, fast, chosen] = std::array{
        layers[0].hits(), layers[1].hits(), layers[2].hits(), layers[3].hits()};
    EXPECT_GT(chosen, 0.98 * std::max({lru, slow, fast}));
    EXPECT_EQ(habit != Habit::kChanges, slow > lru) << slow << " " << lru;
    if (habit == Habit::kFollows) {
      EXPECT_GT(chosen, 1.04 * std::max({lru, slow, fast}));
    }
  }
}

}  // namespace
}  // namespace bullpen
