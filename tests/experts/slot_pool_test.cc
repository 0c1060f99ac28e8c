#include "engine/experts/slot_pool.h"

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

using ::testing::ElementsAre;
using Shapes = std::vector<SlotPool::LayerShape>;

Shapes Alike(int32_t layers, const SlotPool::LayerShape& shape) {
  return Shapes(static_cast<size_t>(layers), shape);
}

// One step of a layer: each expert used once, loaded where it is missing, in
// groups if the layer has too few slots.
void Step(SlotPool& pool, int32_t layer, const std::vector<int32_t>& experts,
          Phase phase = Phase::kDecode) {
  LayerSlots& slots = pool.layer(layer);
  pool.BeginStep(layer, 1, phase);
  std::vector<int32_t> missing;
  std::vector<int32_t> leased;
  for (const int32_t expert : experts) {
    const int32_t slot = slots.Use(expert, 1);
    (slot < 0 ? missing : leased).push_back(expert);
    if (slot >= 0) slots.Lease(slot);
  }
  const auto release = [&] {
    for (const int32_t expert : leased) slots.Release(slots.Find(expert));
    leased.clear();
  };
  for (const int32_t expert : missing) {
    int32_t slot = pool.ClaimForDemand({layer, expert});
    if (slot < 0) {
      release();
      slot = pool.ClaimForDemand({layer, expert});
    }
    ASSERT_GE(slot, 0);
    slots.FinishLoad(slot, true);
    leased.push_back(expert);
  }
  release();
}

std::vector<int32_t> Held(const SlotPool& pool, int32_t layer) {
  std::vector<int32_t> held;
  for (int32_t e = 0; e < pool.layer(layer).experts(); ++e) {
    if (pool.layer(layer).Find(e) >= 0) held.push_back(e);
  }
  return held;
}

// As a search finds it, whatever is known from one before.
int32_t LeastLossNow(LayerSlots slots) {
  for (int32_t slot = 0; slot < slots.slots(); ++slot) {
    if (slots.state(slot) != SlotState::kResident) continue;
    slots.Lease(slot);
    slots.Release(slot);
    break;
  }
  return slots.LeastLoss().slot;
}

std::vector<int32_t> Counts(const SlotPool& pool) {
  std::vector<int32_t> counts;
  for (int32_t l = 0; l < pool.layers(); ++l) {
    counts.push_back(pool.layer(l).slots());
  }
  return counts;
}

TEST(SlotPool, WhereTheFloorIsAllSlotsNoneMoves) {
  SlotPool pool(Alike(2, {.experts = 8, .slots = 2, .floor = 2}), {});
  for (int32_t e = 0; e < 8; ++e) Step(pool, 0, {e});
  EXPECT_EQ(pool.giver(), -1);
  EXPECT_THAT(Counts(pool), ElementsAre(2, 2));
  EXPECT_THAT(Held(pool, 1), ElementsAre());
}

TEST(SlotPool, ALayerTakesWhatIsEmptyElsewhereDownToTheFloor) {
  SlotPool pool(Alike(3, {.experts = 8, .slots = 3, .floor = 2}), {});
  for (int32_t e = 0; e < 5; ++e) Step(pool, 0, {e});
  EXPECT_THAT(Counts(pool), ElementsAre(5, 2, 2));
  EXPECT_THAT(Held(pool, 0), ElementsAre(0, 1, 2, 3, 4));
  Step(pool, 0, {5});
  EXPECT_THAT(Counts(pool), ElementsAre(5, 2, 2));
  EXPECT_EQ(pool.evicted(), (ExpertKey{.layer = 0, .expert = 0}));
}

TEST(SlotPool, WhatMattersLeastGoesWhicheverLayerHasIt) {
  for (const PolicyKind kind :
       {PolicyKind::kLru, PolicyKind::kCrf, PolicyKind::kLfu}) {
    SlotPool pool(Alike(2, {.experts = 8, .slots = 3, .floor = 1}),
                  {.kind = kind, .half_life_tokens = 8});
    // Layer 0 uses all it has often, layer 1 used 5 and 6 once, long ago.
    Step(pool, 1, {5, 6});
    for (int i = 0; i < 4; ++i) {
      Step(pool, 0, {0, 1, 2});
      Step(pool, 1, {7});
    }
    EXPECT_THAT(Counts(pool), ElementsAre(3, 3));
    Step(pool, 0, {3});
    EXPECT_EQ(pool.giver(), 1);
    EXPECT_EQ(pool.evicted(), (ExpertKey{.layer = 1, .expert = 5}));
    EXPECT_THAT(Counts(pool), ElementsAre(4, 2));
    EXPECT_THAT(Held(pool, 0), ElementsAre(0, 1, 2, 3));
    EXPECT_THAT(Held(pool, 1), ElementsAre(6, 7));
  }
}

TEST(SlotPool, PinnedScoresAndThoseOfTheFutureDecideOverLayersToo) {
  for (const PolicyKind kind : {PolicyKind::kStatic, PolicyKind::kBelady}) {
    SlotPool pool(Alike(2, {.experts = 4, .slots = 2, .floor = 1}),
                  {.kind = kind});
    for (int32_t e = 0; e < 4; ++e) {
      pool.layer(0).SetScore(e, -1 - e);
      pool.layer(1).SetScore(e, -10 - e);
    }
    Step(pool, 1, {3, 2});
    Step(pool, 1, {2});
    Step(pool, 0, {0, 1});
    Step(pool, 0, {2});
    EXPECT_EQ(pool.evicted(), (ExpertKey{.layer = 1, .expert = 3}));
    EXPECT_THAT(Held(pool, 0), ElementsAre(0, 1, 2));
  }
}

TEST(SlotPool, WhoKnowsTheFutureGivesAwayWhatTheLastStepUsedToo) {
  SlotPool pool(Alike(2, {.experts = 4, .slots = 2, .floor = 1}),
                {.kind = PolicyKind::kBelady});
  for (int32_t e = 0; e < 4; ++e) pool.layer(1).SetScore(e, -10);
  Step(pool, 1, {2, 3});
  Step(pool, 0, {0, 1});
  Step(pool, 0, {2});
  EXPECT_EQ(pool.evicted(), (ExpertKey{.layer = 1, .expert = 2}));
}

TEST(SlotPool, ALongUnusedOneOfABetterScoreStays) {
  SlotPool pool(Alike(2, {.experts = 8, .slots = 2, .floor = 1}),
                {.kind = PolicyKind::kLfu});
  for (int i = 0; i < 3; ++i) Step(pool, 1, {5, 6});
  for (int i = 0; i < 3; ++i) Step(pool, 1, {});
  Step(pool, 0, {0, 1});
  Step(pool, 0, {2});
  EXPECT_EQ(pool.giver(), -1);
  EXPECT_EQ(pool.evicted(), (ExpertKey{.layer = 0, .expert = 0}));
}

// Layers' clocks differ, and so does how their scores are rounded.
TEST(SlotPool, ScoresThatDifferByRoundingAreEqual) {
  for (int32_t ahead = 1; ahead <= 50; ++ahead) {
    SlotPool pool(Alike(2, {.experts = 4, .slots = 2, .floor = 1}),
                  {.half_life_tokens = 7});
    pool.BeginStep(1, ahead, Phase::kDecode);
    for (const int32_t expert : {0, 1}) {
      for (const int32_t layer : {0, 1}) Step(pool, layer, {expert});
    }
    Step(pool, 1, {});
    Step(pool, 0, {2});
    EXPECT_EQ(pool.giver(), -1) << ahead;
  }
}

// Where a layer has a slot for each expert now, it still knows who is wanted.
TEST(SlotPool, ALayerThatHasAllItsExpertsKeepsThoseItUses) {
  const Shapes shapes = {
      {.experts = 16, .slots = 2, .floor = 1, .blob_bytes = 4096},
      {.experts = 4, .slots = 4, .floor = 1, .blob_bytes = 4096}};
  SlotPool pool(shapes, {});
  for (int32_t round = 0; round < 8; ++round) {
    Step(pool, 0, {2 * round});
    Step(pool, 1, {0, 1});
    Step(pool, 0, {2 * round + 1});
    Step(pool, 1, {2, 3});
  }
  EXPECT_THAT(Counts(pool), ElementsAre(2, 4));
  EXPECT_THAT(Held(pool, 1), ElementsAre(0, 1, 2, 3));
}

TEST(SlotPool, OfEqualsTheLayersOwnGoesThenThatOfTheLayerThatRanLast) {
  SlotPool pool(Alike(4, {.experts = 9, .slots = 2, .floor = 1}),
                {.kind = PolicyKind::kLru});
  for (int32_t l = 0; l < 4; ++l) Step(pool, l, {0});
  for (int32_t l = 0; l < 4; ++l) Step(pool, l, {1});
  // Everywhere 0 was used two tokens ago, when layer 2 runs again; but layers
  // 0 and 1 have run, and there that is one token more.
  Step(pool, 0, {1});
  Step(pool, 1, {1});
  Step(pool, 2, {2});
  EXPECT_EQ(pool.giver(), -1);
  EXPECT_EQ(pool.evicted(), (ExpertKey{.layer = 2, .expert = 0}));
  // Layer 2 has nothing that old now, layers 0 and 1 still have 0.
  Step(pool, 2, {1, 2});
  Step(pool, 2, {3});
  EXPECT_EQ(pool.evicted(), (ExpertKey{.layer = 1, .expert = 0}));
}

TEST(SlotPool, WhatALayersLastStepUsedIsNotGivenAway) {
  SlotPool pool(Alike(2, {.experts = 8, .slots = 2, .floor = 1}),
                {.kind = PolicyKind::kLfu});
  Step(pool, 1, {4, 5});
  for (int i = 0; i < 3; ++i) Step(pool, 0, {0, 1});
  Step(pool, 0, {2});
  EXPECT_EQ(pool.giver(), -1);
  EXPECT_THAT(Held(pool, 1), ElementsAre(4, 5));
}

TEST(SlotPool, AnUnusedGuessGoesBeforeAnythingThatWasUsed) {
  SlotPool pool(Alike(2, {.experts = 8, .slots = 3, .floor = 1}),
                {.kind = PolicyKind::kLru});
  Step(pool, 0, {0, 1, 2});
  Step(pool, 1, {5, 6});
  LayerSlots& guessed = pool.layer(1);
  guessed.FinishLoad(pool.ClaimForGuess({1, 7}), true);
  Step(pool, 0, {0});
  // While its layer has not run it stays.
  Step(pool, 0, {3});
  EXPECT_EQ(pool.evicted(), (ExpertKey{.layer = 0, .expert = 1}));
  Step(pool, 1, {5});
  Step(pool, 0, {4});
  EXPECT_EQ(pool.evicted(), (ExpertKey{.layer = 1, .expert = 7}));
}

TEST(SlotPool, LeasedLoadingGuessedAndExpectedSlotsStay) {
  SlotPool pool(Alike(2, {.experts = 8, .slots = 4, .floor = 1}),
                {.kind = PolicyKind::kLru});
  Step(pool, 1, {0, 1, 2, 3});
  Step(pool, 1, {7});  // evicts 0
  Step(pool, 1, {7});
  LayerSlots& other = pool.layer(1);
  other.Lease(other.Find(1));
  other.Expect(other.Find(2));
  ASSERT_GE(pool.ClaimForGuess({1, 4}), 0);  // loads, in the place of 3
  Step(pool, 0, {0, 1, 2, 3});
  Step(pool, 0, {4});
  // Only 7 is free, and was used last.
  EXPECT_EQ(pool.giver(), -1);
  other.Release(other.Find(1));
  Step(pool, 0, {1, 2, 3, 4});
  Step(pool, 0, {5});
  EXPECT_EQ(pool.evicted(), (ExpertKey{.layer = 1, .expert = 1}));
}

TEST(SlotPool, TheLayerThatRunsGivesNothing) {
  SlotPool pool(Alike(2, {.experts = 8, .slots = 2, .floor = 1}),
                {.kind = PolicyKind::kLru});
  Step(pool, 1, {0, 1});
  Step(pool, 0, {0, 1});
  Step(pool, 0, {1});
  // Layer 0 still runs; its 0 is older than any of layer 1.
  ASSERT_GE(pool.ClaimForGuess({1, 2}), 0);
  EXPECT_EQ(pool.giver(), -1);
  EXPECT_THAT(Held(pool, 0), ElementsAre(0, 1));
}

TEST(SlotPool, APromptStreamsThroughItsOwnRing) {
  SlotPool pool(Alike(2, {.experts = 32, .slots = 8, .floor = 2}),
                {.kind = PolicyKind::kLfu});
  for (int32_t e = 0; e < 8; ++e) {
    Step(pool, 0, {e});
    Step(pool, 1, {e});
  }
  // A decode step of layer 0 would take what layer 1 does not use.
  for (int i = 0; i < 3; ++i) {
    Step(pool, 0, {0, 1, 2, 3, 4, 5, 6, 7});
    Step(pool, 1, {0});
  }
  pool.BeginStep(0, 100, Phase::kPrefill);
  std::set<int32_t> places;
  for (int32_t e = 8; e < 32; ++e) {
    pool.layer(0).Use(e, 9);
    const int32_t slot = pool.ClaimForDemand({0, e});
    ASSERT_GE(slot, 0);
    EXPECT_EQ(pool.giver(), -1);
    places.insert(pool.layer(0).place(slot));
    pool.layer(0).FinishLoad(slot, true);
    pool.layer(0).Release(slot);
  }
  EXPECT_EQ(places.size(), 2u);
  EXPECT_THAT(Counts(pool), ElementsAre(8, 8));
  EXPECT_EQ(Held(pool, 1).size(), 8u);
}

// A step that needs more experts than its layer has slots goes through them in
// groups, rather than take what the other layers need as much.
TEST(SlotPool, AStepOfManyExpertsDoesNotEmptyTheOtherLayers) {
  SlotPool pool(Alike(2, {.experts = 8, .slots = 3, .floor = 1}),
                {.kind = PolicyKind::kLru});
  Step(pool, 1, {0, 1, 2});
  pool.BeginStep(0, 1, Phase::kDecode);
  for (int32_t e = 0; e < 8; ++e) pool.layer(0).Use(e, 1);
  for (int32_t e = 0; e < 3; ++e) {
    const int32_t slot = pool.ClaimForDemand({0, e});
    pool.layer(0).FinishLoad(slot, true);
  }
  EXPECT_EQ(pool.ClaimForDemand({0, 3}), -1);
  pool.layer(0).Release(pool.layer(0).Find(0));
  EXPECT_GE(pool.ClaimForDemand({0, 3}), 0);
  EXPECT_EQ(pool.giver(), -1);
}

TEST(SlotPool, SlotsOfDifferentBlobSizesNeverMix) {
  Shapes shapes =
      Alike(2, {.experts = 8, .slots = 2, .floor = 1, .blob_bytes = 4096});
  shapes.push_back({.experts = 8, .slots = 6, .floor = 1, .blob_bytes = 8192});
  SlotPool pool(shapes, {});
  for (int i = 0; i < 3; ++i) {
    for (int32_t e = 0; e < 8; ++e) Step(pool, 0, {e});
  }
  EXPECT_THAT(Counts(pool), ElementsAre(3, 1, 6));
  for (int32_t slot = 0; slot < 3; ++slot) {
    EXPECT_LT(pool.layer(0).place(slot), 4);
  }
}

// By seed, over every rule: what holds after each step of a random cache.
TEST(SlotPool, HoldsItsInvariantsUnderRandomUse) {
  constexpr uint64_t kSeeds = 300;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const auto draw = [&](int32_t low, int32_t high) {
      return std::uniform_int_distribution<int32_t>(low, high)(random);
    };
    Shapes shapes;
    std::vector<int32_t> size_slots(2);
    for (int32_t l = draw(1, 5); l >= 0; --l) {
      const int32_t experts = draw(1, 12);
      const int32_t slots = draw(1, experts);
      const int32_t size = draw(0, 1);
      shapes.push_back({.experts = experts,
                        .slots = slots,
                        .floor = draw(1, slots),
                        .blob_bytes = 4096 * (1 + size)});
      size_slots[size] += slots;
    }
    const PolicyKind kind = std::vector{PolicyKind::kCrf, PolicyKind::kLru,
                                        PolicyKind::kLfu}[draw(0, 2)];
    SlotPool pool(shapes, {.kind = kind});
    for (int step = 0; step < 80; ++step) {
      const int32_t layer = draw(0, pool.layers() - 1);
      std::vector<int32_t> experts;
      for (int32_t e = 0; e < shapes[layer].experts; ++e) {
        if (draw(0, 3) == 0) experts.push_back(e);
      }
      Step(pool, layer, experts,
           draw(0, 4) == 0 ? Phase::kPrefill : Phase::kDecode);
      std::vector<int32_t> sums(2);
      std::set<int32_t> places;
      for (int32_t l = 0; l < pool.layers(); ++l) {
        const LayerSlots& slots = pool.layer(l);
        ASSERT_GE(slots.slots(), shapes[l].floor);
        ASSERT_LE(slots.slots(), shapes[l].experts);
        sums[shapes[l].blob_bytes / 4096 - 1] += slots.slots();
        for (int32_t slot = 0; slot < slots.slots(); ++slot) {
          ASSERT_TRUE(places.insert(slots.place(slot)).second);
          if (slots.expert(slot) >= 0) {
            ASSERT_EQ(slots.Find(slots.expert(slot)), slot);
          }
        }
        ASSERT_EQ(Held(pool, l).size(),
                  static_cast<size_t>(slots.resident() + slots.loading()));
        ASSERT_EQ(LeastLossNow(slots), pool.layer(l).LeastLoss().slot);
      }
      ASSERT_EQ(sums, size_slots);
      ASSERT_EQ(static_cast<int32_t>(places.size()), pool.slots());
      ASSERT_LT(*places.rbegin(), pool.slots());
    }
  }
}

TEST(SlotPoolDeathTest, AFloorIsAtMostTheSlots) {
  EXPECT_DEATH(SlotPool(Alike(1, {.experts = 8, .slots = 2, .floor = 3}), {}),
               "floor 3 of 2 slots");
}

}  // namespace
}  // namespace bullpen
