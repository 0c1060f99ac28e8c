#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "tests/kernels/kernel_testing.h"

namespace bullpen::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
using Score = RouterRule::Score;

struct Result {
  Exact<int32_t> chosen;
  Floats weights;
};

Result RunRoute(const Ops& ops, Stream stream, const Floats& logits,
                RouteArgs args) {
  args.tokens = static_cast<int32_t>(logits.size() / args.experts);
  Result result{Exact<int32_t>(int64_t{args.tokens} * args.k, -1),
                Floats(int64_t{args.tokens} * args.k)};
  args.logits = logits.data();
  args.chosen = result.chosen.data();
  args.weights = result.weights.data();
  EXPECT_TRUE(ops.route(args, stream).ok());
  return result;
}

::testing::AssertionResult SameResult(const Result& actual,
                                      const Result& expected) {
  for (int64_t i = 0; i < expected.chosen.size(); ++i) {
    if (actual.chosen[i] != expected.chosen[i]) {
      return ::testing::AssertionFailure()
             << "choice " << i << " is " << actual.chosen[i] << ", expected "
             << expected.chosen[i];
    }
  }
  return SameBits(actual.weights, expected.weights);
}

// Every rule that a family could ask for, in random combination.
RouteArgs RandomRule(Random& random, const Floats& bias) {
  RouteArgs args;
  args.experts = random.OneOf({1, 2, 7, 8, 16, 32, 60, 64, 128, 257, 1024});
  args.k = random.Between(1, std::min(args.experts, 32));
  args.rule.score =
      random.OneOf({Score::kSoftmax, Score::kSigmoid, Score::kSoftmaxOverChosen,
                    Score::kSparseMixer});
  args.rule.jitter = random.OneOf({0.01f, 0.15f, 0.6f});
  args.rule.renormalise = random.Between(0, 1) == 1;
  args.rule.norm_eps = random.OneOf({0.0f, 1e-20f});
  args.rule.norm_least = random.OneOf({0.0f, 1e-12f, 0.7f});
  args.rule.scaling = random.OneOf({1.0f, 2.5f});
  args.rule.group_score_top2 = random.Between(0, 1) == 1;
  if (args.experts % 8 == 0 && random.Between(0, 1) == 1) {
    args.rule.groups = 8;
    args.rule.groups_kept = random.Between(1, 8);
    args.k = std::min(args.k, args.experts / 8 * args.rule.groups_kept);
  }
  if (random.Between(0, 1) == 1) args.choice_bias = bias.data();
  return args;
}

// k distinct experts in range for each token.
void ExpectValidChoice(const Result& result, const RouteArgs& args) {
  for (int64_t first = 0; first < result.chosen.size(); first += args.k) {
    std::set<int32_t> distinct;
    for (int32_t r = 0; r < args.k; ++r) {
      const int32_t expert = result.chosen[first + r];
      ASSERT_GE(expert, 0);
      ASSERT_LT(expert, args.experts);
      ASSERT_TRUE(distinct.insert(expert).second) << expert << " twice";
    }
  }
}

class RouteTest : public OpsTest {};

TEST_P(RouteTest, EqualsOracleForAnyRule) {
  for (uint32_t seed = 0; seed < 400; ++seed) {
    Random random(seed);
    const Floats bias = random.Vector(1024);
    const RouteArgs args = RandomRule(random, bias);
    Floats logits =
        random.Vector(int64_t{random.Between(0, 9)} * args.experts, 3.0f);
    // Whole numbers tie often.
    if (random.Between(0, 1) == 1) {
      for (int64_t i = 0; i < logits.size(); ++i) {
        logits[i] = std::round(logits[i]);
      }
    }
    const Result expected = RunRoute(oracle(), Threads(1), logits, args);
    for (int threads : {1, 3}) {
      ASSERT_TRUE(
          SameResult(RunRoute(ops(), Threads(threads), logits, args), expected))
          << "seed " << seed << ", " << args.experts << " experts, k " << args.k
          << ", groups " << args.rule.groups;
    }
  }
}

TEST_P(RouteTest, AnyLogitsGiveDistinctExpertsInRange) {
  for (uint32_t seed = 0; seed < 400; ++seed) {
    Random random(seed);
    Floats bias = random.Vector(1024);
    RouteArgs args = RandomRule(random, bias);
    Floats logits = random.Vector(int64_t{5} * args.experts);
    const int32_t share = random.OneOf({0, 50, 100});
    for (int64_t i = 0; i < logits.size(); ++i) {
      if (random.Between(0, 99) < share) {
        logits[i] = random.OneOf({std::nanf(""), kInfinity, -kInfinity, 0.0f,
                                  -0.0f, std::numeric_limits<float>::max()});
      }
      if (random.Between(0, 99) < share / 2) {
        bias[i % 1024] = random.OneOf({std::nanf(""), kInfinity, -kInfinity});
      }
    }
    const Result expected = RunRoute(oracle(), Threads(1), logits, args);
    const Result actual = RunRoute(ops(), Threads(1), logits, args);
    ASSERT_NO_FATAL_FAILURE(ExpectValidChoice(expected, args)) << seed;
    ASSERT_NO_FATAL_FAILURE(ExpectValidChoice(actual, args)) << seed;
    ASSERT_TRUE(SameResult(actual, expected)) << "seed " << seed;
  }
}

INSTANTIATE_FOR_EACH_ISA(RouteTest);

// What the rules mean, on every table that this CPU has.
class RouteRules : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!IsSupported(GetParam())) {
      GTEST_SKIP() << "this CPU cannot run " << IsaName(GetParam());
    }
  }
  Result Route(std::initializer_list<float> logits, RouteArgs args) {
    Floats copy(static_cast<int64_t>(logits.size()));
    std::copy(logits.begin(), logits.end(), copy.data());
    args.experts = static_cast<int32_t>(logits.size());
    return RunRoute(CpuOps(GetParam()), Stream{}, copy, args);
  }
};

TEST_P(RouteRules, TiesGoToTheLowestIndex) {
  const Result result = Route({1, 2, 2, -0.0f, 2, 0.0f}, {.k = 6});
  const int32_t expected[] = {1, 2, 4, 0, 3, 5};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(result.chosen[i], expected[i]) << i;
}

TEST_P(RouteRules, AllNanChoosesTheFirstExperts) {
  const float nan = std::nanf("");
  const Result result = Route({nan, nan, nan, nan}, {.k = 3});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(result.chosen[i], i);
}

TEST_P(RouteRules, NanCountsAsMinusInfinity) {
  const Result result = Route({std::nanf(""), 1, 0}, {.k = 3});
  EXPECT_EQ(result.chosen[0], 1);
  EXPECT_EQ(result.chosen[1], 2);
  EXPECT_EQ(result.chosen[2], 0);
  EXPECT_EQ(result.weights[2], 0.0f);
}

TEST_P(RouteRules, RenormalisedWeightsAddUpToOne) {
  const Result result =
      Route({3, 1, 2, 0, -1}, {.k = 2, .rule = {.renormalise = true}});
  EXPECT_NEAR(result.weights[0] + result.weights[1], 1.0f, 1e-6f);
  EXPECT_NEAR(result.weights[0], 1 / (1 + std::exp(-1.0)), 1e-6);
}

// The bias chooses an expert with almost no share of the softmax, or none.
TEST_P(RouteRules, RenormalisedWeightsOfAlmostNothingStaySmall) {
  Floats bias(3);
  bias[2] = 5;
  RouteArgs args{.choice_bias = bias.data(),
                 .k = 1,
                 .rule = {.renormalise = true, .norm_least = 1e-12f}};
  EXPECT_NEAR(Route({40, 40, 10}, args).weights[0], std::exp(-30) / 2e-12,
              1e-6);
  EXPECT_EQ(Route({400, 400, 10}, args).weights[0], 0);
  EXPECT_EQ(Route({40, 40, 39}, args).weights[0], 1);
}

TEST_P(RouteRules, SoftmaxOverChosenIgnoresTheOthers) {
  const Result result = Route(
      {3, 1, 2, 2.9f}, {.k = 1, .rule = {.score = Score::kSoftmaxOverChosen}});
  EXPECT_EQ(result.chosen[0], 0);
  EXPECT_EQ(result.weights[0], 1.0f);
}

// Phi-3.5-MoE: of the logits 2, 1.9, 1.5, -3 the first is chosen beside those
// within 2 * 0.1 of it, relative; then the next without it.
TEST_P(RouteRules, SparseMixerWeighsAgainstNearLogits) {
  const Result result =
      Route({1.5f, 2, 1.9f, -3},
            {.k = 2, .rule = {.score = Score::kSparseMixer, .jitter = 0.1f}});
  EXPECT_EQ(result.chosen[0], 1);
  EXPECT_EQ(result.chosen[1], 2);
  EXPECT_NEAR(result.weights[0], 1 / (1 + std::exp(-0.1)), 1e-6);
  EXPECT_EQ(result.weights[1], 1.0f);
}

TEST_P(RouteRules, BiasChangesTheChoiceAndNotTheWeight) {
  const float bias[] = {0.0f, 10.0f, 0.0f};
  const Result result =
      Route({3, 0, 2},
            {.choice_bias = bias, .k = 1, .rule = {.score = Score::kSigmoid}});
  EXPECT_EQ(result.chosen[0], 1);
  EXPECT_EQ(result.weights[0], 0.5f);
}

TEST_P(RouteRules, OnlyKeptGroupsAreChosenFrom) {
  // The best expert stands in a group whose two best are worth less.
  const Result result =
      Route({9, 0, 8, 7}, {.k = 2,
                           .rule = {.score = Score::kSoftmaxOverChosen,
                                    .groups = 2,
                                    .groups_kept = 1,
                                    .group_score_top2 = true}});
  EXPECT_EQ(result.chosen[0], 2);
  EXPECT_EQ(result.chosen[1], 3);
  const Result by_best = Route(
      {9, 0, 8, 7},
      {.k = 2,
       .rule = {
           .score = Score::kSoftmaxOverChosen, .groups = 2, .groups_kept = 1}});
  EXPECT_EQ(by_best.chosen[0], 0);
  EXPECT_EQ(by_best.chosen[1], 1);
}

TEST_P(RouteRules, ImpossibleRuleIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(Route({1, 2}, {.k = 3}), "k 3 of 2 experts");
  EXPECT_DEATH(
      Route({1, 2, 3, 4}, {.k = 3, .rule = {.groups = 2, .groups_kept = 1}}),
      "1 of 2 groups kept");
}

INSTANTIATE_TEST_SUITE_P(
    Isa, RouteRules, ::testing::Values(Isa::kOracle, Isa::kAvx2, Isa::kAvx512),
    [](const auto& info) { return std::string(IsaName(info.param)); });

}  // namespace
}  // namespace bullpen::kernels
