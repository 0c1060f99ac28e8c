#include "engine/experts/prefetch_governor.h"

#include <cmath>
#include <random>

#include "gtest/gtest.h"

namespace bullpen {
namespace {

// Seconds of `steps` decode steps that take so long with prefetch on or off.
double Simulate(PrefetchGovernor& governor, int32_t steps, double on,
                double off) {
  double seconds = 0;
  for (int32_t i = 0; i < steps; ++i) {
    const double step = governor.on() ? on : off;
    seconds += step;
    governor.EndStep(step, 1);
  }
  return seconds;
}

TEST(PrefetchGovernorTest, CostsLittleWherePrefetchDoesNotPay) {
  PrefetchGovernor governor;
  Simulate(governor, 2000, 1.3, 1.0);
  EXPECT_LE(Simulate(governor, 20000, 1.3, 1.0), 1.01 * 20000);
}

TEST(PrefetchGovernorTest, KeepsPrefetchWhereItPays) {
  PrefetchGovernor governor;
  Simulate(governor, 2000, 0.7, 1.0);
  EXPECT_LE(Simulate(governor, 20000, 0.7, 1.0), 0.71 * 20000);
}

TEST(PrefetchGovernorTest, ComesBackWhenItPaysAgain) {
  PrefetchGovernor governor;
  Simulate(governor, 20000, 1.3, 1.0);
  Simulate(governor, 5000, 0.7, 1.0);
  EXPECT_LE(Simulate(governor, 20000, 0.7, 1.0), 0.71 * 20000);
}

TEST(PrefetchGovernorTest, CountsTimeByToken) {
  PrefetchGovernor governor;
  // A step of eight tokens takes longer than one of one; per token, prefetch
  // pays. Which way runs what is drawn by seed.
  std::mt19937 random(7);
  int32_t on = 0;
  for (int32_t i = 0; i < 20000; ++i) {
    const int32_t rows = random() % 2 == 0 ? 1 : 8;
    on += i >= 10000 && governor.on();
    governor.EndStep(rows * (governor.on() ? 0.7 : 1.0), rows);
  }
  EXPECT_GT(on, 9500);
}

// The batch changes in bursts, and seconds do not grow with its tokens: what a
// window of small batches takes for a token says nothing of one of large ones.
double SimulateBursts(PrefetchGovernor& governor, int32_t steps, double on,
                      double off, uint32_t seed) {
  std::mt19937 random(seed);
  double relative = 0;
  int32_t rows = 1;
  for (int32_t i = 0; i < steps; ++i) {
    if (random() % 30 == 0) rows = 1 + static_cast<int32_t>(random() % 8);
    const double step = (1 + 0.2 * rows) * (governor.on() ? on : off);
    relative += governor.on() ? on : off;
    governor.EndStep(step, rows);
  }
  return relative / steps;
}

TEST(PrefetchGovernorTest, ABatchThatChangesDoesNotMisleadIt) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    PrefetchGovernor governor;
    SimulateBursts(governor, 4000, 1.1, 1.0, seed);
    EXPECT_LE(SimulateBursts(governor, 40000, 1.1, 1.0, seed), 1.02);
    SimulateBursts(governor, 8000, 0.9, 1.0, seed);
    EXPECT_LE(SimulateBursts(governor, 40000, 0.9, 1.0, seed), 0.92);
  }
}

// The share of `steps` steps that load ahead, over 50 seeds, where a step takes
// seconds(random, its number) without and `on` times as long with.
template <typename Seconds>
double ShareOn(int32_t steps, double on, Seconds&& seconds) {
  constexpr int32_t kSeeds = 50;
  int32_t with = 0;
  for (int32_t seed = 0; seed < kSeeds; ++seed) {
    std::mt19937 random(static_cast<uint32_t>(seed));
    PrefetchGovernor governor;
    for (int32_t i = 0; i < steps; ++i) {
      with += governor.on();
      governor.EndStep(seconds(random, i) * (governor.on() ? on : 1.0), 1);
    }
  }
  return with / (1.0 * kSeeds * steps);
}

// The cache fills while the first trials run: whichever way comes later looks
// faster, if it is not compared with what came after it as well.
TEST(PrefetchGovernorTest, ACacheThatFillsDoesNotMisleadIt) {
  const auto seconds = [](std::mt19937& random, int32_t i) {
    const double misses = 1 + 2 * std::exp(-i / 25.0);
    return misses * (0.9 + 0.2 * static_cast<double>(random()) /
                               static_cast<double>(std::mt19937::max()));
  };
  EXPECT_GT(ShareOn(400, 0.9, seconds), 0.85);
}

// What a text needs is there or not, whatever is loaded ahead: a window may be
// ten times as fast as the next, by chance just when the other way is tried.
TEST(PrefetchGovernorTest, ATextThatChangesDoesNotMisleadIt) {
  double text = 1;
  const auto seconds = [&text](std::mt19937& random, int32_t i) {
    if (i == 0) text = 1;
    if (random() % 50 == 0) text = 0.1 * (1 + random() % 12);
    return text;
  };
  EXPECT_GT(ShareOn(4000, 0.97, seconds), 0.85);
}

TEST(PrefetchGovernorTest, StepsThatLoadNothingAheadAreNotJudged) {
  PrefetchGovernor governor;
  for (int32_t i = 0; i < 10000; ++i) {
    ASSERT_TRUE(governor.on());
    governor.EndStep(1, PrefetchGovernor::kMaxRows + 1);
  }
}

}  // namespace
}  // namespace bullpen
