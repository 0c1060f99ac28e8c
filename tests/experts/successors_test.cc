#include "engine/experts/successors.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace bullpen {
namespace {

using Step = std::vector<int32_t>;

void RunStep(Successors& successors, const Step& step, int64_t now) {
  successors.BeginStep();
  for (const int32_t expert : step) successors.Use(expert, now, 1, true);
}

// Steps of one to four tokens, each of which uses three experts.
TEST(Successors, TheScoreIsTheSmoothedShareOfStepsThatFollowed) {
  constexpr int32_t kExperts = 12;
  std::mt19937 random(3);
  Successors successors(kExperts);
  // By the definition: steps that used i, and those of them after which e came.
  std::vector<double> rows(kExperts);
  std::map<std::pair<int32_t, int32_t>, double> followed;
  // Decayed, by expert and in all.
  std::vector<double> uses(kExperts);
  double tokens = 0;
  Step before;
  int64_t now = 0;
  for (int i = 0; i < 60; ++i) {
    Step step(kExperts);
    for (int32_t e = 0; e < kExperts; ++e) step[e] = e;
    std::ranges::shuffle(step, random);
    step.resize(3);
    const int32_t step_tokens = 1 + static_cast<int32_t>(random() % 4);
    now += step_tokens;
    const double decay = std::exp2(-step_tokens / 16.0);
    tokens = tokens * decay + step_tokens;
    for (double& count : uses) count *= decay;
    successors.BeginStep();
    for (const int32_t e : step) {
      uses[e] += step_tokens;
      successors.Use(e, now, step_tokens, true);
    }

    for (int32_t e = 0; e < kExperts; ++e) {
      double expected = 0;
      for (const int32_t last : step) {
        expected +=
            (followed[{last, e}] + uses[e] / tokens) / (rows[last] + 1) / 3;
      }
      ASSERT_NEAR(successors.Score(e), expected, 1e-5)
          << "expert " << e << ", step " << i;
    }
    for (const int32_t last : before) {
      ++rows[last];
      for (const int32_t e : step) ++followed[{last, e}];
    }
    before = step;
  }
}

TEST(Successors, WhatComesInTurnsIsKnownAfterOneRound) {
  Successors successors(8);
  int64_t now = 0;
  for (int round = 0; round < 4; ++round) {
    for (int32_t turn = 0; turn < 4; ++turn) {
      RunStep(successors, {2 * turn, 2 * turn + 1}, ++now);
      if (round == 0) continue;
      const int32_t next = 2 * ((turn + 1) % 4);
      for (int32_t e = 0; e < 8; ++e) {
        if (e == next || e == next + 1) continue;
        EXPECT_GT(successors.Score(next), successors.Score(e));
        EXPECT_GT(successors.Score(next + 1), successors.Score(e));
      }
    }
  }
}

TEST(Successors, EachUseCounts) {
  Successors successors(4);
  RunStep(successors, {0}, 1);
  RunStep(successors, {2}, 2);
  RunStep(successors, {1}, 3);
  const double before = successors.Score(2);
  successors.Use(0, 3, 1, true);
  EXPECT_GT(successors.Score(2), before);
}

TEST(Successors, BeforeItsFirstUseAndInAPromptFrequencyIsAllThatIsKnown) {
  Successors successors(4);
  int64_t now = 0;
  for (int i = 0; i < 20; ++i) {
    RunStep(successors, {0}, ++now);
    RunStep(successors, {2}, ++now);
  }
  EXPECT_GT(successors.Score(0), 0.9);
  successors.BeginStep();
  EXPECT_NEAR(successors.Score(0), 0.5, 0.05);
  for (const int32_t expert : {1, 2, 3}) successors.Use(expert, now, 1, true);
  EXPECT_NEAR(successors.Score(0), 0.5, 0.05);
}

// A prompt, which uses most of them, neither follows on anything nor is
// followed: whichever it used, the scores are the same once frequencies are
// forgotten.
TEST(Successors, APromptTellsNothingOfWhoFollows) {
  Successors one(6);
  Successors other(6);
  const auto run = [&](const Step& step, const Step& instead, int64_t now) {
    RunStep(one, step, now);
    RunStep(other, instead, now);
  };
  int64_t now = 0;
  for (const Step& step : {Step{0}, {4}, {1}, {5}}) run(step, step, ++now);
  run({0, 1, 2, 3}, {2, 3, 4, 5}, ++now);
  for (int32_t e = 0; e < 6; ++e) {
    run({e}, {e}, now += 1000);
    for (int32_t next = 0; next < 6; ++next) {
      EXPECT_NEAR(one.Score(next), other.Score(next), 1e-6)
          << e << ", " << next;
    }
  }
}

// Whatever the steps are, also of many tokens, scores are numbers, none below
// zero, and the same when asked for again.
TEST(Successors, ScoresAreFiniteWhateverTheSteps) {
  std::mt19937 random(9);
  Successors successors(5);
  for (int32_t e = 0; e < 5; ++e) EXPECT_EQ(successors.Score(e), 0);
  int64_t now = 0;
  for (int i = 0; i < 5000; ++i) {
    now += static_cast<int64_t>(random() % 3) * (i % 100 == 0 ? 1 << 20 : 1);
    successors.BeginStep();
    for (uint32_t e = random() % 5; e < 5; e += 1 + random() % 3) {
      successors.Use(static_cast<int32_t>(e), now, 1 + random() % 300, true);
    }
    for (int32_t e = 0; e < 5; ++e) {
      const double score = successors.Score(e);
      ASSERT_TRUE(std::isfinite(score) && score >= 0)
          << score << ", step " << i;
      ASSERT_EQ(successors.Score(e), score);
    }
  }
}

}  // namespace
}  // namespace bullpen
