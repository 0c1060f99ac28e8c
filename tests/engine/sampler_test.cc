#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "engine/softmax.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

using ::testing::ElementsAre;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> LogsOf(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (double p : probabilities) {
    logits.push_back(static_cast<float>(std::log(p)) + 2.5f);
  }
  return logits;
}

std::map<int32_t, int> Draws(const std::vector<float>& logits,
                             SamplingParams params, int count) {
  Sampler sampler(static_cast<int32_t>(logits.size()));
  std::map<int32_t, int> draws;
  for (int step = 0; step < count; ++step) {
    ++draws[sampler.Sample(logits, params, {}, {}, step)];
  }
  return draws;
}

std::vector<int32_t> Support(const std::vector<float>& logits,
                             const SamplingParams& params) {
  std::vector<int32_t> ids;
  for (const auto& [id, count] : Draws(logits, params, 4000)) ids.push_back(id);
  return ids;
}

double ChiSquare(const std::map<int32_t, int>& draws,
                 const std::vector<double>& probabilities, int count) {
  double sum = 0;
  for (size_t id = 0; id < probabilities.size(); ++id) {
    const double expected = probabilities[id] * count;
    const auto it = draws.find(static_cast<int32_t>(id));
    const double seen = it == draws.end() ? 0 : it->second;
    sum += (seen - expected) * (seen - expected) / expected;
  }
  return sum;
}

const std::vector<double> kSkewed = {0.05, 0.4, 0.02, 0.25, 0.08, 0.2};

TEST(Sampler, GreedyTakesTheLargestAndTheLowestOfEquals) {
  Sampler sampler(5);
  const SamplingParams greedy{.temperature = 0};
  EXPECT_EQ(
      sampler.Sample(std::vector<float>{1, 3, 2, 3, 0}, greedy, {}, {}, 0), 1);
  EXPECT_EQ(sampler.Sample(std::vector<float>{kNan, -9, kNan, -8, kNan}, greedy,
                           {}, {}, 0),
            3);
}

TEST(Sampler, NanIsNeverDrawnWhileThereIsANumber) {
  const std::vector<float> logits = {kNan, 1, kNan, 2};
  EXPECT_THAT(Support(logits, {}), ElementsAre(1, 3));
  EXPECT_THAT(Support(logits, {.top_k = 3}), ElementsAre(1, 3));
  EXPECT_THAT(Support(logits, {.top_p = 0.99f}), ElementsAre(1, 3));
  const std::vector<float> none(4, kNan);
  Sampler sampler(4);
  EXPECT_EQ(sampler.Sample(none, {.top_p = 0.5f}, {}, {}, 0), 0);
}

// So that CheckLogit sees it.
TEST(Sampler, AnInfiniteLogitIsDrawn) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_THAT(Support({0, 1, kInfinity, 2}, {}), ElementsAre(2));
}

TEST(Sampler, DrawsFollowTheDistribution) {
  // 5 degrees of freedom: 20.5 is passed once in a thousand.
  constexpr int kDraws = 20000;
  const std::vector<float> logits = LogsOf(kSkewed);
  EXPECT_LT(ChiSquare(Draws(logits, {.seed = 7}, kDraws), kSkewed, kDraws),
            20.5);
  EXPECT_LT(ChiSquare(Draws(logits, {.top_k = 5, .seed = 7}, kDraws),
                      {0.05 / 0.98, 0.4 / 0.98, 1e-9, 0.25 / 0.98, 0.08 / 0.98,
                       0.2 / 0.98},
                      kDraws),
            20.5);
  EXPECT_LT(ChiSquare(Draws(logits, {.top_p = 0.999f, .seed = 8}, kDraws),
                      kSkewed, kDraws),
            20.5);
  EXPECT_LT(ChiSquare(Draws(logits, {.min_p = 0.3f, .seed = 9}, kDraws),
                      {1e-9, 0.4 / 0.85, 1e-9, 0.25 / 0.85, 1e-9, 0.2 / 0.85},
                      kDraws),
            20.5);
}

TEST(Sampler, TemperatureFlattens) {
  constexpr int kDraws = 20000;
  std::vector<double> flat;
  for (double p : kSkewed) flat.push_back(std::sqrt(p));
  const double total = std::accumulate(flat.begin(), flat.end(), 0.0);
  for (double& p : flat) p /= total;
  EXPECT_LT(
      ChiSquare(Draws(LogsOf(kSkewed), {.temperature = 2, .seed = 3}, kDraws),
                flat, kDraws),
      20.5);
}

TEST(Sampler, DrawsOfALargeVocabularyFollowTheDistribution) {
  constexpr int kVocab = 4096, kDraws = 40000, kBins = 16;
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> logits(kVocab);
  for (float& logit : logits) logit = normal(random);
  std::vector<double> bins(kBins, 0);
  double total = 0;
  for (int id = 0; id < kVocab; ++id) {
    bins[id % kBins] += std::exp(logits[id]);
    total += std::exp(logits[id]);
  }
  for (double& bin : bins) bin /= total;
  std::map<int32_t, int> seen;
  for (const auto& [id, count] : Draws(logits, {.seed = 11}, kDraws)) {
    seen[id % kBins] += count;
  }
  EXPECT_LT(ChiSquare(seen, bins, kDraws), 37.7);  // 15 degrees, 1 in 1000
}

TEST(Sampler, TopKKeepsExactlyTheLikeliest) {
  const std::vector<float> logits = LogsOf(kSkewed);
  EXPECT_THAT(Support(logits, {.top_k = 1}), ElementsAre(1));
  EXPECT_THAT(Support(logits, {.top_k = 3}), ElementsAre(1, 3, 5));
  EXPECT_EQ(Support(logits, {.top_k = 6}).size(), 6u);
  EXPECT_EQ(Support(logits, {.top_k = 100}).size(), 6u);
  EXPECT_THAT(Support({1, 1, 1, 1}, {.top_k = 2}), ElementsAre(0, 1));
}

TEST(Sampler, TopPKeepsTheFewestThatReachTheMass) {
  const std::vector<float> logits = LogsOf(kSkewed);
  EXPECT_THAT(Support(logits, {.top_p = 0.3f}), ElementsAre(1));
  EXPECT_THAT(Support(logits, {.top_p = 0.45f}), ElementsAre(1, 3));
  EXPECT_THAT(Support(logits, {.top_p = 0.7f}), ElementsAre(1, 3, 5));
  EXPECT_EQ(Support(logits, {.top_p = 1.0f}).size(), 6u);
  // Over what top_k left: 0.4 / 0.65 of it is the first.
  EXPECT_THAT(Support(logits, {.top_k = 2, .top_p = 0.6f}), ElementsAre(1));
  // Half of four equals is two of them, and no more.
  const std::vector<float> equals = {1, 1, 1, 1, -9};
  EXPECT_THAT(Support({1, 1, 1, 1}, {.top_p = 0.5f}), ElementsAre(0, 1));
  EXPECT_THAT(Support(equals, {.top_k = 4, .top_p = 0.5f}), ElementsAre(0, 1));
}

TEST(Sampler, TopPKeepsTheLowestIdsOfEquals) {
  const std::vector<float> flat(2000, 0.5f);
  const std::vector<int32_t> ids = Support(flat, {.top_p = 0.04999f});
  EXPECT_EQ(ids.size(), 100u);
  EXPECT_EQ(ids.back(), 99);
}

TEST(Sampler, MinPIsRelativeToTheLikeliest) {
  const std::vector<float> logits = LogsOf(kSkewed);
  EXPECT_THAT(Support(logits, {.min_p = 0.3f}), ElementsAre(1, 3, 5));
  EXPECT_THAT(Support(logits, {.top_k = 5, .min_p = 0.3f}),
              ElementsAre(1, 3, 5));
  EXPECT_THAT(Support(logits, {.top_p = 0.99f, .min_p = 0.6f}),
              ElementsAre(1, 3));
  EXPECT_THAT(Support(logits, {.min_p = 0.99f}), ElementsAre(1));
  // One that is just as likely as that stays.
  const float least = SoftmaxTerm(1.5f, 2, 1);
  EXPECT_THAT(Support({2, 1.5f, 1}, {.min_p = least}), ElementsAre(0, 1));
  EXPECT_THAT(Support({2, 1.5f, 1, 0}, {.top_k = 3, .min_p = least}),
              ElementsAre(0, 1));
}

TEST(Sampler, TheSameSeedGivesTheSameTokensAndAnotherOneOthers) {
  const std::vector<float> logits = LogsOf(kSkewed);
  const auto tokens = [&](uint64_t seed) {
    Sampler sampler(6);
    std::vector<int32_t> ids;
    for (int step = 0; step < 64; ++step) {
      ids.push_back(sampler.Sample(logits, {.seed = seed}, {}, {}, step));
    }
    return ids;
  };
  EXPECT_EQ(tokens(1), tokens(1));
  EXPECT_NE(tokens(1), tokens(2));
  EXPECT_NE(tokens(0), tokens(uint64_t{1} << 63));
}

TEST(Sampler, ADrawDependsOnItsStepAlone) {
  const std::vector<float> logits = LogsOf(kSkewed);
  const SamplingParams params{.top_p = 0.9f, .seed = 5};
  Sampler in_order(6), reversed(6);
  std::vector<int32_t> forward, backward;
  for (int step = 0; step < 32; ++step) {
    forward.push_back(in_order.Sample(logits, params, {}, {}, step));
  }
  for (int step = 31; step >= 0; --step) {
    backward.push_back(reversed.Sample(logits, params, {}, {}, step));
  }
  std::ranges::reverse(backward);
  EXPECT_EQ(forward, backward);
}

TEST(Sampler, BiasIsAddedAndPenaltiesCount) {
  Sampler sampler(4);
  const std::vector<float> logits = {1.0f, 0.9f, 0.5f, -1.0f};
  const std::vector<int32_t> prompt = {0, 0};
  const std::vector<int32_t> output = {1, 1, 2};
  const auto greedy = [&](SamplingParams params) {
    params.temperature = 0;
    return sampler.Sample(logits, params, prompt, output, 3);
  };
  EXPECT_EQ(greedy({}), 0);
  EXPECT_EQ(greedy({.logit_bias = {{3, 5.0f}}}), 3);
  EXPECT_EQ(greedy({.logit_bias = {{0, -100.0f}}}), 1);
  // 0: 0.5, 1: 0.45, 2: 0.25, and twice in the history counts once.
  EXPECT_EQ(greedy({.repetition_penalty = 2.0f}), 0);
  EXPECT_EQ(greedy({.repetition_penalty = 2.0f, .logit_bias = {{3, 1.4f}}}), 0);
  EXPECT_EQ(greedy({.repetition_penalty = 2.0f, .logit_bias = {{3, 1.6f}}}), 3);
  // The prompt is not penalised by these.
  EXPECT_EQ(greedy({.presence_penalty = 1.0f, .logit_bias = {{0, -0.4f}}}), 0);
  EXPECT_EQ(greedy({.presence_penalty = -0.2f}), 1);
  // 1 stands twice in the output: 0.9 + 0.2; 2 once: 0.5 + 0.1.
  EXPECT_EQ(greedy({.frequency_penalty = -0.1f}), 1);
  EXPECT_EQ(greedy({.frequency_penalty = -0.04f}), 0);
  EXPECT_EQ(greedy({}), 0);  // nothing is remembered
}

TEST(Sampler, ARepetitionPenaltyLowersNegativeLogitsToo) {
  Sampler sampler(2);
  const std::vector<int32_t> prompt = {0};
  EXPECT_EQ(sampler.Sample(std::vector<float>{-1.0f, -1.5f},
                           {.temperature = 0, .repetition_penalty = 2}, prompt,
                           {}, 0),
            1);
}

TEST(Sampler, LogprobsAreOfTheWholeDistributionAndSumToOne) {
  constexpr int kVocab = 1000;
  std::mt19937_64 random(9);
  std::normal_distribution<float> normal(0, 4);
  std::vector<float> logits(kVocab);
  for (float& logit : logits) logit = normal(random);
  Sampler sampler(kVocab);
  const TokenEvent event = sampler.Logprobs(logits, 17, kVocab);
  ASSERT_EQ(event.top.size(), static_cast<size_t>(kVocab));
  double sum = 0;
  for (size_t i = 0; i < event.top.size(); ++i) {
    sum += std::exp(event.top[i].logprob);
    if (i > 0) {
      EXPECT_LE(event.top[i].logprob, event.top[i - 1].logprob);
    }
    if (event.top[i].id == 17) {
      EXPECT_EQ(event.top[i].logprob, *event.logprob);
    }
  }
  EXPECT_NEAR(sum, 1.0, 1e-5);
  EXPECT_EQ(sampler.Logprobs(logits, 17, 0).top.size(), 0u);
  const TokenEvent few = sampler.Logprobs(logits, 17, 3);
  ASSERT_EQ(few.top.size(), 3u);
  EXPECT_EQ(few.top[2].id, event.top[2].id);
}

}  // namespace
}  // namespace bullpen
