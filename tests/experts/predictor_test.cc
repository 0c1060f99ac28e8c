#include "engine/experts/predictor.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <new>
#include <numeric>
#include <random>
#include <set>

#include "engine/experts/log_odds.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace {
int64_t allocations = 0;
}  // namespace

// Counts what the whole test program allocates. Not inlined, so that the
// compiler sees pairs of new and delete, not of new and free.
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations;
  void* const memory = std::malloc(size);
  if (memory == nullptr) std::abort();
  return memory;
}
[[gnu::noinline]] void* operator new(size_t size,
                                     const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

namespace bullpen {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAreArray;

constexpr int32_t kExperts = 16;

RoutingShape Shape(int32_t layers, int32_t top_k, int32_t max_rows = 4) {
  return {
      .layers = std::vector<RoutingShape::Layer>(
          static_cast<size_t>(layers), {.experts = kExperts, .top_k = top_k}),
      .max_rows = max_rows};
}

// Each expert leads to the next one in the layer behind.
void RunChain(RoutingPredictor& predictor, int32_t layers, int32_t first) {
  for (int32_t l = 0; l < layers; ++l) {
    const int32_t chosen[] = {(first + l) % kExperts};
    predictor.Observe(l, chosen, 1);
  }
}

TEST(LogOdds, IsCloseToTheExactValueAndBack) {
  for (float p = 0.001f; p < 0.9985f; p += 0.001f) {
    EXPECT_NEAR(LogOdds(p), std::log(p / (1 - p)), 1e-3) << p;
    EXPECT_NEAR(Probability(LogOdds(p)), p, 1e-3);
  }
  for (const float p : {0.0f, 1.0f}) {
    EXPECT_NEAR(std::fabs(LogOdds(p)), kMaxLogOdds, 0.01f);
  }
  EXPECT_NEAR(FastLog(1e-3f), std::log(1e-3), 1e-3);
  EXPECT_NEAR(FastExp(-20) / std::exp(-20.0), 1, 1e-4);
}

TEST(ConditionalTable, CountsGiveTheShareOfThePathSmoothedByThePrior) {
  ConditionalTable table(2, 3, /*row_uses=*/100);
  const int32_t zero[] = {0};
  const int32_t one[] = {1};
  const int32_t both[] = {0, 1};
  const int32_t two[] = {2};
  for (int i = 0; i < 3; ++i) table.Learn(zero, both);
  table.Learn(one, two);
  const std::vector<float> prior = {0.5f, 0.5f, 1.0f};
  std::vector<float> p(3);
  table.Estimate(zero, prior, p);
  EXPECT_THAT(
      p, ElementsAre(FloatNear(3.5f / 4, 1e-6f), FloatNear(3.5f / 4, 1e-6f),
                     FloatNear(1.0f / 4, 1e-6f)));
  table.Estimate(both, prior, p);
  EXPECT_NEAR(p[2], (1.0f / 4 + 2.0f / 2) / 2, 1e-6f);
}

TEST(ConditionalTable, HalvesARowThatIsFullSoThatNewHabitsWin) {
  ConditionalTable table(1, 2, /*row_uses=*/8);
  const std::vector<float> prior = {0.5f, 0.5f};
  const int32_t from[] = {0};
  const int32_t before[] = {0};
  const int32_t after[] = {1};
  for (int i = 0; i < 1000; ++i) table.Learn(from, before);
  for (int i = 0; i < 16; ++i) table.Learn(from, after);
  std::vector<float> p(2);
  table.Estimate(from, prior, p);
  EXPECT_GT(p[1], 0.8f);
  EXPECT_LE(table.row_totals()[0], 8);
}

TEST(ConditionalTable, RestoresWhatItGaveAndRefusesWhatItCouldNotHave) {
  ConditionalTable table(2, 2, /*row_uses=*/8);
  const int32_t from[] = {1};
  table.Learn(from, from);
  ConditionalTable copy(2, 2, 8);
  EXPECT_TRUE(copy.Restore(table.counts(), table.row_totals()));
  EXPECT_THAT(copy.counts(), ElementsAre(0, 0, 0, 1));
  const uint16_t more_than_total[] = {0, 0, 0, 2};
  const uint16_t totals[] = {0, 1};
  const uint16_t above_limit[] = {0, 9};
  EXPECT_FALSE(copy.Restore(more_than_total, totals));
  EXPECT_FALSE(copy.Restore(table.counts(), above_limit));
  EXPECT_FALSE(copy.Restore({}, {}));
  EXPECT_THAT(copy.counts(), ElementsAre(0, 0, 0, 1));
}

TEST(Popularity, FallsByHalfInItsHalfLife) {
  Popularity popularity(4, 1, /*half_life_tokens=*/10);
  const std::vector<int32_t> ones(1000, 1);
  popularity.Learn(ones, 1000);
  EXPECT_NEAR(popularity.shares()[1], 1, 1e-5);
  popularity.Learn(std::vector<int32_t>(10, 3), 10);
  EXPECT_NEAR(popularity.shares()[1], 0.5, 1e-5);
  EXPECT_NEAR(popularity.shares()[3], 0.5, 1e-5);
  EXPECT_NEAR(popularity.log_odds()[3], 0, 1e-3);
}

TEST(RoutingPredictor, LearnsWhichExpertFollowsWhichAtEveryHorizon) {
  constexpr int32_t kLayers = 6;
  RoutingPredictor predictor(Shape(kLayers, 1),
                             {.horizon = 4, .min_probability = 0.5f});
  std::mt19937 random(7);
  int32_t sure = 0;
  for (int token = 0; token < 600; ++token) {
    const int32_t first = static_cast<int32_t>(random() % kExperts);
    for (int32_t l = 0; l < kLayers; ++l) {
      const int32_t chosen[] = {(first + l) % kExperts};
      predictor.Observe(l, chosen, 1);
      for (int32_t h = 1; h <= 4 && l + h < kLayers; ++h) {
        const auto guesses = predictor.Guess({.layer = l + h, .horizon = h});
        if (token < 500) continue;
        ASSERT_THAT(guesses, SizeIs(1)) << "layer " << l << " + " << h;
        EXPECT_EQ(guesses[0].expert, (first + l + h) % kExperts);
        ++sure;
      }
    }
  }
  EXPECT_EQ(sure, 100 * (5 + 4 + 3 + 2));
  EXPECT_GT(predictor.combined_counts(1).precision(), 0.9);
  EXPECT_GT(predictor.counts(Evidence::kPath, 4).recall(), 0.9);
}

TEST(RoutingPredictor, TellsWhatEachKindOfEvidenceCostsWhileItIsWatched) {
  RoutingPredictor predictor(Shape(4, 1), {.horizon = 1});
  static double now = 0;
  predictor.costs() = CostMeter([] { return now += 1; });
  RunChain(predictor, 4, 0);
  EXPECT_EQ(now, 0) << "nobody watches, no clock is read";
  predictor.costs().Watch(true);
  RunChain(predictor, 4, 0);
  const int32_t path = static_cast<int32_t>(Evidence::kPath);
  const int32_t router = static_cast<int32_t>(Evidence::kRouter);
  const double learning = predictor.costs().seconds(path);
  EXPECT_EQ(learning, 4) << "each layer once";
  predictor.Guess({.layer = 3, .horizon = 1});
  EXPECT_EQ(predictor.costs().seconds(router), 0);
  EXPECT_GT(predictor.costs().seconds(CostMeter::kCombined), 4);
}

TEST(RoutingPredictor, GuessesNothingWhereNothingCanBeKnown) {
  RoutingPredictor predictor(Shape(3, 2), {.min_probability = 0.4f});
  std::mt19937 random(11);
  for (int token = 0; token < 4000; ++token) {
    for (int32_t l = 0; l < 3; ++l) {
      const int32_t a = static_cast<int32_t>(random() % kExperts);
      const int32_t b =
          (a + 1 + static_cast<int32_t>(random() % (kExperts - 1))) % kExperts;
      predictor.Observe(l, std::vector<int32_t>{a, b}, 1);
      if (l < 2) predictor.Guess({.layer = l + 1});
    }
  }
  EXPECT_LT(predictor.combined_counts(1).recall(), 0.01);
}

// One expert is used by two tokens of three, whatever came before.
TEST(RoutingPredictor, ProbabilitiesAreThoseThatTurnOut) {
  RoutingPredictor predictor(Shape(2, 1), {.min_probability = 0.3f});
  std::mt19937 random(3);
  double sum = 0;
  for (int token = 0; token < 6000; ++token) {
    for (int32_t l = 0; l < 2; ++l) {
      const uint32_t draw = random();
      const int32_t chosen[] = {
          draw % 3 < 2 ? 5 : static_cast<int32_t>(draw / 3 % kExperts)};
      predictor.Observe(l, chosen, 1);
    }
    const auto guesses = predictor.Guess({.layer = 1});
    if (token < 3000) continue;
    ASSERT_THAT(guesses, SizeIs(1));
    EXPECT_EQ(guesses[0].expert, 5);
    sum += guesses[0].probability;
  }
  EXPECT_NEAR(sum / 3000, 2.0 / 3 + 1.0 / 3 / kExperts, 0.05);
}

TEST(RoutingPredictor, EachRowOfAStepIsFollowed) {
  RoutingPredictor predictor(Shape(2, 1), {.min_probability = 0.5f});
  std::mt19937 random(5);
  for (int token = 0; token < 400; ++token) {
    const int32_t first = static_cast<int32_t>(random() % kExperts);
    RunChain(predictor, 1, first);
    predictor.Guess({.layer = 1});
    predictor.Observe(1, std::vector<int32_t>{(first + 1) % kExperts}, 1);
  }
  predictor.Observe(0, std::vector<int32_t>{2, 9, 2}, 3);
  std::vector<int32_t> experts;
  for (const ExpertGuess& guess : predictor.Guess({.layer = 1})) {
    experts.push_back(guess.expert);
  }
  std::ranges::sort(experts);
  EXPECT_THAT(experts, ElementsAre(3, 10));
}

TEST(RoutingPredictor, TrustsARouterThatIsRightAndLearnsToIgnoreOneThatLies) {
  for (const bool lies : {false, true}) {
    RoutingPredictor predictor(Shape(2, 1), {.min_probability = 0.5f});
    std::mt19937 random(13);
    GuessCounts before;
    for (int token = 0; token < 3000; ++token) {
      const int32_t from = static_cast<int32_t>(random() % kExperts);
      const int32_t stated = static_cast<int32_t>(random() % kExperts);
      // Where it lies, the path alone tells; where not, the router alone.
      const int32_t truth = lies ? (from + 1) % kExperts : stated;
      std::vector<float> margins(kExperts, -2.0f);
      margins[stated] = 0.5f;
      predictor.Observe(0, std::vector<int32_t>{from}, 1);
      predictor.Guess({.layer = 1, .router_margins = margins});
      predictor.Observe(1, std::vector<int32_t>{truth}, 1);
      if (token == 2000) before = predictor.combined_counts(1);
    }
    const GuessCounts& all = predictor.combined_counts(1);
    const double right = static_cast<double>(all.right - before.right);
    EXPECT_GT(right / static_cast<double>(all.used - before.used), 0.95);
    EXPECT_GT(right / static_cast<double>(all.guessed - before.guessed), 0.95);
  }
}

// What was used long is popular still when something else is used of late.
TEST(RoutingPredictor, HabitsAreForgottenSlowlyAndQuickly) {
  for (const Evidence evidence : {Evidence::kPopularity, Evidence::kRecent}) {
    RoutingPredictor predictor(Shape(1, 1), {.evidence = Bit(evidence)});
    for (int i = 0; i < 200; ++i) predictor.Observe(0, std::vector{1}, 1);
    for (int i = 0; i < 20; ++i) predictor.Observe(0, std::vector{2}, 1);
    const auto guesses = predictor.Guess({.layer = 0});
    ASSERT_FALSE(guesses.empty());
    EXPECT_EQ(guesses[0].expert, evidence == Evidence::kRecent ? 2 : 1);
  }
}

TEST(RoutingPredictor, EachGuessIsCountedOnceAndARoutersByItsOwnChoice) {
  RoutingPredictor predictor(Shape(1, 1), {.evidence = Bit(Evidence::kRouter)});
  std::vector<float> margins(kExperts, -4.0f);
  margins[3] = 0;
  margins[5] = -0.5f;  // near, but not chosen
  predictor.BeginStep({});
  predictor.Guess({.layer = 0, .router_margins = margins});
  for (int step = 0; step < 3; ++step) {
    predictor.Observe(0, std::vector{3}, 1);
    const GuessCounts& router = predictor.counts(Evidence::kRouter, 1);
    EXPECT_EQ(router.guessed, 1u);
    EXPECT_EQ(router.right, 1u);
    EXPECT_EQ(router.used, 1u);
    EXPECT_EQ(predictor.combined_counts(1).used, 1u);
  }
}

// What is known of a request counts for its own rows.
TEST(RoutingPredictor, EachRowIsGuessedByWhatItsOwnRequestsLikeUsed) {
  RoutingPredictor predictor(Shape(1, 1), {.min_probability = 0.2f});
  std::vector<float> six(kExperts, LogOdds(0.001f));
  std::vector<float> nine = six;
  six[6] = LogOdds(0.98f);
  nine[9] = LogOdds(0.95f);
  const std::vector<int32_t> ids = {0, 0, 0};
  const auto experts = [&](std::vector<const float*> odds) {
    predictor.BeginStep(
        {.ids = std::span(ids).first(odds.size()), .request_odds = odds});
    std::vector<int32_t> all;
    for (const ExpertGuess& guess : predictor.Guess({.layer = 0})) {
      all.push_back(guess.expert);
    }
    return all;
  };
  EXPECT_THAT(experts({six.data()}), ElementsAre(6));
  EXPECT_THAT(experts({nullptr, nine.data(), six.data()}), ElementsAre(6, 9));
  EXPECT_THAT(experts({nullptr, nullptr}), IsEmpty());
  predictor.BeginStep({.ids = ids});
  EXPECT_THAT(predictor.Guess({.layer = 0}), IsEmpty());
}

// Two rows that want an expert with probability a and b: one of them does with
// 1 - (1 - a) (1 - b).
TEST(RoutingPredictor, RowsAreMergedByTheProbabilityThatAnyUsesTheExpert) {
  RoutingPredictor predictor(Shape(1, 1), {.evidence = Bit(Evidence::kRequest),
                                           .min_probability = 0.01f});
  std::vector<float> a(kExperts, -kMaxLogOdds);
  std::vector<float> b = a;
  a[2] = LogOdds(0.4f);
  b[2] = LogOdds(0.3f);
  b[5] = LogOdds(0.2f);
  const std::vector<int32_t> ids = {0, 0};
  const std::vector<const float*> odds = {a.data(), b.data()};
  predictor.BeginStep({.ids = ids, .request_odds = odds});
  const auto guesses = predictor.Guess({.layer = 0});
  ASSERT_THAT(guesses, SizeIs(2));
  EXPECT_EQ(guesses[0].expert, 2);
  EXPECT_NEAR(guesses[0].probability, 1 - 0.6 * 0.7, 2e-3);
  EXPECT_EQ(guesses[1].expert, 5);
  EXPECT_NEAR(guesses[1].probability, 0.2, 2e-3);
}

// What was known of a request lives until the next step begins.
TEST(RoutingPredictor, AStepThatEndsAmidItsLayersLeavesNoGuessToLearnFrom) {
  RoutingPredictor predictor(Shape(2, 1), {.min_probability = 0.01f});
  const std::vector<int32_t> ids = {0};
  {
    const std::vector<float> odds(2 * kExperts, LogOdds(0.2f));
    const std::vector<const float*> rows = {odds.data()};
    predictor.BeginStep({.ids = ids, .request_odds = rows});
    predictor.Guess({.layer = 0});
    predictor.Observe(0, std::vector<int32_t>{3}, 1);
    predictor.Guess({.layer = 1});
  }
  EXPECT_EQ(predictor.counts(Evidence::kRequest, 1).used, 1u);
  predictor.BeginStep({.ids = ids});
  predictor.Observe(0, std::vector<int32_t>{4}, 1);
  predictor.Observe(1, std::vector<int32_t>{5}, 1);
  EXPECT_EQ(predictor.counts(Evidence::kRequest, 1).used, 1u);
}

// The experts of the first layers follow from the id alone, those behind from
// nothing.
TEST(RoutingPredictor, TheIdsOfAStepTellItsFirstLayersBeforeTheyRun) {
  constexpr int32_t kLayers = 5;
  constexpr int32_t kVocab = 100;
  RoutingShape shape = Shape(kLayers, 1);
  shape.vocab = kVocab;
  RoutingPredictor predictor(shape, {.horizon = 1, .min_probability = 0.5f});
  ASSERT_EQ(predictor.reach(), RoutingPredictor::kTokenLayers);
  std::mt19937 random(17);
  const auto expert_of = [&random](int32_t id, int32_t layer) {
    return layer < RoutingPredictor::kTokenLayers
               ? id * 7 % kExperts
               : static_cast<int32_t>(random() % kExperts);
  };
  for (int token = 0; token < 3000; ++token) {
    const std::vector<int32_t> ids = {static_cast<int32_t>(random() % kVocab),
                                      static_cast<int32_t>(random() % kVocab)};
    predictor.BeginStep({.ids = ids});
    for (int32_t l = 0; l < RoutingPredictor::kTokenLayers; ++l) {
      std::vector<int32_t> experts;
      for (const ExpertGuess& guess :
           predictor.Guess({.layer = l, .horizon = l + 1})) {
        experts.push_back(guess.expert);
      }
      if (token < 2500) continue;
      EXPECT_THAT(experts, UnorderedElementsAreArray(std::set<int32_t>{
                               expert_of(ids[0], l), expert_of(ids[1], l)}));
    }
    for (int32_t l = 0; l < kLayers; ++l) {
      predictor.Observe(
          l, std::vector<int32_t>{expert_of(ids[0], l), expert_of(ids[1], l)},
          2);
    }
  }
  for (int32_t h = 1; h <= RoutingPredictor::kTokenLayers; ++h) {
    EXPECT_GT(predictor.counts(Evidence::kToken, h).precision(), 0.95);
    EXPECT_GT(predictor.counts(Evidence::kToken, h).recall(), 0.9);
  }
}

TEST(RoutingPredictor, APromptTeachesAllItsIdsAndIsFollowedByItsLast) {
  RoutingShape shape = Shape(2, 1, /*max_rows=*/2);
  shape.vocab = 50;
  RoutingPredictor predictor(
      shape, {.evidence = Bit(Evidence::kToken), .min_probability = 0.5f});
  std::vector<int32_t> ids(40);
  std::iota(ids.begin(), ids.end(), 0);
  std::vector<int32_t> chosen;
  for (const int32_t id : ids) chosen.push_back(id % kExperts);
  for (int i = 0; i < 100; ++i) {
    predictor.BeginStep({.ids = ids});
    predictor.Observe(0, chosen, 40);
    predictor.Guess({.layer = 1});
    predictor.Observe(1, chosen, 40);
  }
  for (const int32_t id : {0, 13, 39}) {
    predictor.BeginStep({.ids = std::span(&id, 1)});
    const auto guesses = predictor.Guess({.layer = 0});
    ASSERT_FALSE(guesses.empty()) << id;
    EXPECT_EQ(guesses[0].expert, id % kExperts);
    predictor.Observe(0, std::span(&chosen[id], 1), 1);
  }
}

// Whoever tells of no ids gets what there is without them.
TEST(RoutingPredictor, WithoutIdsNothingIsSaidOfTokens) {
  RoutingPredictor predictor(Shape(3, 1), {.horizon = 2});
  EXPECT_EQ(predictor.reach(), 2);
  for (int token = 0; token < 50; ++token) {
    for (int32_t l = 0; l < 3; ++l) {
      predictor.Observe(l, std::vector<int32_t>{token % kExperts}, 1);
      if (l < 2) predictor.Guess({.layer = l + 1});
    }
  }
  EXPECT_EQ(predictor.counts(Evidence::kToken, 1).used, 0);
}

TEST(RoutingPredictor, ADenseLayerIsCertainAndTeachesNothing) {
  RoutingShape shape = Shape(3, 1);
  shape.layers[1] = {.experts = 1, .top_k = 1};
  RoutingPredictor predictor(shape, {.min_probability = 0.5f});
  for (int token = 0; token < 10; ++token) {
    predictor.Observe(0, std::vector<int32_t>{1}, 1);
    predictor.Observe(1, std::vector<int32_t>{0}, 1);
    predictor.Observe(2, std::vector<int32_t>{1}, 1);
    const auto guesses = predictor.Guess({.layer = 1});
    ASSERT_THAT(guesses, SizeIs(1));
    EXPECT_EQ(guesses[0].probability, 1);
    predictor.Guess({.layer = 2});
  }
}

TEST(RoutingPredictor, TablesKeepToTheirBytes) {
  const int64_t one_horizon = 3 * ConditionalTable::Bytes(kExperts, kExperts);
  RoutingPredictor predictor(Shape(4, 1),
                             {.horizon = 3, .table_bytes = one_horizon});
  EXPECT_EQ(predictor.table_horizon(), 1);
  RunChain(predictor, 4, 0);
  predictor.Guess({.layer = 3, .horizon = 3});
}

TEST(RoutingPredictor, TokensTakeWhatPathsLeave) {
  RoutingShape shape = Shape(4, 1);
  shape.vocab = 1 << 20;
  const int64_t paths = (3 + 2) * ConditionalTable::Bytes(kExperts, kExperts);
  for (const int64_t budget : {paths, paths + 30000, paths + 3000000}) {
    const RoutingPredictor with(shape, {.horizon = 2, .table_bytes = budget});
    const RoutingPredictor without(
        shape, {.evidence = kAllEvidence & ~Bit(Evidence::kToken),
                .horizon = 2,
                .table_bytes = budget});
    EXPECT_EQ(with.table_horizon(), 2);
    // Beside the tables there is scratch for one horizon more.
    constexpr int64_t kScratch = 4 * 4 * kExperts * sizeof(float);
    const int64_t taken = with.bytes() - without.bytes() - kScratch;
    EXPECT_LE(taken, budget - paths);
    EXPECT_GE(taken, (budget - paths) * 9 / 10);
  }
}

TEST(RoutingPredictor, AllocatesNothingOnceItIsMade) {
  constexpr int32_t kRows = 4;
  RoutingShape shape = Shape(4, 2, kRows);
  shape.vocab = 10;
  RoutingPredictor predictor(shape, {.horizon = 3});
  const std::vector<int32_t> ids = {3, 1, 4, 1};
  std::vector<float> margins(kRows * kExperts, -1.0f);
  std::vector<int32_t> chosen(kRows * 2);
  std::iota(chosen.begin(), chosen.end(), 0);
  const int64_t before = allocations;
  for (int step = 0; step < 20; ++step) {
    predictor.BeginStep({.ids = ids});
    predictor.Guess({.layer = 0});
    for (int32_t l = 0; l < 4; ++l) {
      predictor.Observe(l, chosen, kRows);
      for (int32_t h = 1; h <= 3; ++h) {
        predictor.Guess(
            {.layer = (l + h) % 4, .horizon = h, .router_margins = margins});
      }
    }
  }
  EXPECT_EQ(allocations, before);
}

}  // namespace
}  // namespace bullpen
