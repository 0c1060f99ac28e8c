#include "engine/experts/layer_slots.h"

#include <algorithm>
#include <random>
#include <set>

#include "gtest/gtest.h"

namespace bullpen {
namespace {

// Brings `expert` in as a step would, and ends its lease.
int32_t Fill(LayerSlots& slots, int32_t expert) {
  slots.Use(expert, 1);
  const int32_t slot = slots.ClaimForDemand(expert);
  EXPECT_GE(slot, 0);
  slots.FinishLoad(slot, true);
  slots.Release(slot);
  return slot;
}

TEST(LayerSlots, ASlotGoesFromEmptyToLoadingToResident) {
  LayerSlots slots(4, 2, {});
  slots.BeginStep(1, Phase::kDecode);
  EXPECT_EQ(slots.Use(3, 1), -1);
  const int32_t slot = slots.ClaimForDemand(3);
  ASSERT_GE(slot, 0);
  EXPECT_EQ(slots.state(slot), SlotState::kLoading);
  EXPECT_TRUE(slots.leased(slot));
  EXPECT_EQ(slots.Find(3), slot);
  EXPECT_EQ(slots.loading(), 1);
  slots.FinishLoad(slot, true);
  EXPECT_EQ(slots.state(slot), SlotState::kResident);
  EXPECT_EQ(slots.resident(), 1);
  EXPECT_EQ(slots.loading(), 0);
}

TEST(LayerSlots, AFailedLoadLeavesTheSlotEmpty) {
  LayerSlots slots(4, 1, {});
  slots.BeginStep(1, Phase::kDecode);
  const int32_t slot = slots.ClaimForDemand(3);
  slots.FinishLoad(slot, false);
  EXPECT_EQ(slots.state(slot), SlotState::kEmpty);
  EXPECT_FALSE(slots.leased(slot));
  EXPECT_EQ(slots.Find(3), -1);
  EXPECT_EQ(slots.loading() + slots.resident(), 0);
  EXPECT_FALSE(slots.full());
  EXPECT_EQ(slots.ClaimForDemand(2), slot);
}

TEST(LayerSlots, LoadingAndLeasedSlotsAreNeverVictims) {
  LayerSlots slots(4, 2, {});
  slots.BeginStep(1, Phase::kDecode);
  const int32_t a = slots.ClaimForDemand(0);
  const int32_t b = slots.ClaimForDemand(1);
  slots.FinishLoad(a, true);
  EXPECT_EQ(slots.ClaimForDemand(2), -1);
  slots.Release(a);
  EXPECT_EQ(slots.ClaimForDemand(2), a);
  EXPECT_EQ(slots.evicted(), 0);
  EXPECT_EQ(slots.ClaimForDemand(3), -1);
  EXPECT_EQ(slots.evicted(), -1);
  EXPECT_EQ(slots.state(b), SlotState::kLoading);
  EXPECT_EQ(slots.Find(0), -1);
}

TEST(LayerSlots, TheLeastScoreGoesFirst) {
  LayerSlots slots(4, 3, {});
  slots.BeginStep(1, Phase::kDecode);
  for (const int32_t e : {0, 1, 2}) Fill(slots, e);
  slots.BeginStep(1, Phase::kDecode);
  slots.Use(0, 1);
  slots.Use(2, 1);
  Fill(slots, 3);
  EXPECT_EQ(slots.Find(1), -1);
  EXPECT_GE(slots.Find(0), 0);
  EXPECT_GE(slots.Find(2), 0);
}

TEST(LayerSlots, PrefillReplacesAtMostAQuarter) {
  LayerSlots slots(64, 16, {});
  slots.BeginStep(1, Phase::kDecode);
  for (int32_t e = 0; e < 16; ++e) Fill(slots, e);
  slots.BeginStep(100, Phase::kPrefill);
  std::set<int32_t> taken;
  for (int32_t e = 16; e < 64; ++e) taken.insert(Fill(slots, e));
  EXPECT_EQ(taken.size(), 4u);
  int32_t kept = 0;
  for (int32_t e = 0; e < 16; ++e) kept += slots.Find(e) >= 0;
  EXPECT_EQ(kept, 12);
  // The next step has a ring of its own, and decode none.
  slots.BeginStep(1, Phase::kDecode);
  taken.clear();
  for (int32_t e = 0; e < 16; ++e) {
    if (slots.Find(e) >= 0) slots.Lease(slots.Find(e));
  }
  for (int32_t e = 16; e < 20; ++e) {
    if (slots.Find(e) < 0) taken.insert(slots.ClaimForDemand(e));
  }
  EXPECT_FALSE(taken.contains(-1));
}

TEST(LayerSlots, EachPromptHasARingOfItsOwn) {
  LayerSlots slots(64, 4, {.kind = PolicyKind::kLru});
  slots.BeginStep(1, Phase::kDecode);
  for (int32_t e = 0; e < 4; ++e) Fill(slots, e);
  for (const int32_t first : {8, 16}) {
    slots.BeginStep(10, Phase::kPrefill);
    std::set<int32_t> taken;
    for (int32_t e = first; e < first + 8; ++e) taken.insert(Fill(slots, e));
    EXPECT_EQ(taken.size(), 2u);
  }
}

TEST(LayerSlots, PrefillFillsEmptySlotsFirst) {
  LayerSlots slots(64, 16, {});
  slots.BeginStep(100, Phase::kPrefill);
  for (int32_t e = 0; e < 16; ++e) Fill(slots, e);
  EXPECT_EQ(slots.resident(), 16);
  for (int32_t e = 0; e < 16; ++e) EXPECT_GE(slots.Find(e), 0);
  // They are no part of its ring.
  for (int32_t e = 16; e < 64; ++e) Fill(slots, e);
  int32_t kept = 0;
  for (int32_t e = 0; e < 16; ++e) kept += slots.Find(e) >= 0;
  EXPECT_EQ(kept, 12);
}

TEST(LayerSlots, TimeIsCountedInTokens) {
  LayerSlots slots(4, 2, {.half_life_tokens = 8});
  slots.BeginStep(1, Phase::kDecode);
  slots.Use(0, 1);
  slots.BeginStep(8, Phase::kPrefill);
  EXPECT_NEAR(slots.Score(0), 0.5, 1e-12);
}

TEST(LayerSlots, PrefillCountsSeedTheScores) {
  LayerSlots slots(8, 4, {});
  slots.BeginStep(100, Phase::kPrefill);
  for (int32_t e = 0; e < 4; ++e) {
    slots.Use(e, e == 2 ? 1 : 50);
    const int32_t slot = slots.ClaimForDemand(e);
    slots.FinishLoad(slot, true);
    slots.Release(slot);
  }
  slots.BeginStep(1, Phase::kDecode);
  Fill(slots, 7);
  EXPECT_EQ(slots.Find(2), -1);
}

TEST(LayerSlots, AGuessKeepsItsSlotUntilItsLayerHasRun) {
  LayerSlots slots(8, 1, {});
  const int32_t slot = slots.ClaimForGuess(5);
  ASSERT_GE(slot, 0);
  slots.FinishLoad(slot, true);
  EXPECT_EQ(slots.ClaimForGuess(6), -1);
  slots.BeginStep(1, Phase::kDecode);
  EXPECT_EQ(slots.ClaimForDemand(6), slot);
}

TEST(LayerSlots, WhatIsExpectedStaysUntilItsLayerHasRunAndThenAsBefore) {
  LayerSlots slots(6, 2, {.kind = PolicyKind::kLru});
  slots.BeginStep(1, Phase::kDecode);
  const int32_t old = Fill(slots, 0);
  const int32_t fresh = Fill(slots, 1);
  slots.Expect(old);
  EXPECT_EQ(slots.ClaimForGuess(2), fresh);
  slots.FinishLoad(fresh, true);
  slots.Expect(fresh);  // a guess already: nothing changes
  EXPECT_EQ(slots.ClaimForGuess(3), -1);
  slots.BeginStep(1, Phase::kDecode);
  // The guess that came to nothing goes first, not what was expected.
  EXPECT_EQ(slots.ClaimForDemand(4), fresh);
  slots.FinishLoad(fresh, true);
  EXPECT_EQ(slots.ClaimForDemand(5), old);
}

TEST(LayerSlots, AnUnusedGuessIsTheFirstToGo) {
  LayerSlots slots(8, 3, {});
  slots.BeginStep(1, Phase::kDecode);
  Fill(slots, 0);
  slots.FinishLoad(slots.ClaimForGuess(5), true);
  slots.FinishLoad(slots.ClaimForGuess(6), true);
  // 5 has the best score of all, and 6 is used now: 5 is still what was
  // guessed wrong.
  slots.Use(5, 100);
  slots.BeginStep(1, Phase::kDecode);
  slots.Use(6, 1);
  Fill(slots, 1);
  EXPECT_EQ(slots.Find(5), -1);
  EXPECT_GE(slots.Find(6), 0);
  EXPECT_GE(slots.Find(0), 0);
}

TEST(LayerSlots, AnUnusedGuessStaysTheFirstToGo) {
  LayerSlots slots(8, 3, {});
  slots.BeginStep(1, Phase::kDecode);
  Fill(slots, 0);
  slots.Use(5, 100);
  slots.FinishLoad(slots.ClaimForGuess(5), true);
  slots.BeginStep(1, Phase::kDecode);
  slots.FinishLoad(slots.ClaimForGuess(6), true);
  slots.BeginStep(1, Phase::kDecode);
  slots.Use(6, 1);
  Fill(slots, 1);
  EXPECT_EQ(slots.Find(5), -1);
}

// Changes nothing but that it searches anew.
void Forget(LayerSlots& slots) {
  for (int32_t slot = 0; slot < slots.slots(); ++slot) {
    if (slots.state(slot) == SlotState::kEmpty) continue;
    const bool leased = slots.leased(slot);
    if (leased) slots.Release(slot);
    slots.Lease(slot);
    if (!leased) slots.Release(slot);
  }
}

TEST(LayerSlots, WhereNoneMayBeTakenTheLeastOfAllSaysWhatALossWouldBe) {
  LayerSlots slots(4, 3, {.kind = PolicyKind::kLfu});
  slots.BeginStep(1, Phase::kDecode);
  for (const int32_t e : {2, 0, 1}) Fill(slots, e);
  slots.Use(2, 6);
  slots.Use(0, 4);
  EXPECT_EQ(slots.LeastLoss().slot, -1);  // the last step used them all
  EXPECT_EQ(slots.LeastLoss().kind, SlotLoss::Kind::kUsed);
  EXPECT_EQ(slots.LeastLoss().score, 1);
}

// It is kept from search to search: whatever happens in between, it is what a
// search would find now.
TEST(LayerSlots, TheLeastLossIsThatOfTheMoment) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const auto draw = [&](int32_t low, int32_t high) {
      return std::uniform_int_distribution<int32_t>(low, high)(random);
    };
    const PolicyKind kind = std::vector{PolicyKind::kCrf, PolicyKind::kLru,
                                        PolicyKind::kStatic}[draw(0, 2)];
    LayerSlots slots(8, 4, {.kind = kind, .slots_move = true});
    int32_t place = 4;
    for (int verb = 0; verb < 200; ++verb) {
      const int32_t expert = draw(0, 7);
      const int32_t slot = slots.Find(expert);
      const bool holds = slot >= 0;
      const bool loads = holds && slots.state(slot) == SlotState::kLoading;
      const int32_t what = draw(0, 9);
      if (what == 0) slots.BeginStep(draw(1, 3), Phase::kDecode);
      if (what == 1) slots.Use(expert, draw(1, 5));
      if (what == 2 && !holds) slots.ClaimForDemand(expert);
      if (what == 3 && !holds) slots.ClaimForGuess(expert);
      if (what == 4 && holds) slots.Expect(slot);
      if (what == 5 && loads) slots.FinishLoad(slot, draw(0, 3) > 0);
      if (what == 6 && holds && !slots.leased(slot)) slots.Lease(slot);
      if (what == 7 && holds && slots.leased(slot)) slots.Release(slot);
      if (what == 8) slots.SetScore(expert, draw(0, 5));
      if (what == 9 && slots.slots() < 8) slots.Receive(place++);
      if (what == 9 && slots.LeastLoss().slot >= 0 && slots.slots() > 2) {
        slots.GiveLeast();
      }
      LayerSlots searches = slots;
      Forget(searches);
      const SlotLoss& found = searches.LeastLoss();
      const SlotLoss& kept = slots.LeastLoss();
      ASSERT_EQ(kept.slot, found.slot);
      ASSERT_EQ(kept.kind, found.kind);
      ASSERT_EQ(kept.score, found.score);
      ASSERT_EQ(kept.age, found.age);
    }
  }
}

TEST(LayerSlotsDeathTest, AnExpertHasOneSlot) {
  LayerSlots slots(4, 2, {});
  slots.BeginStep(1, Phase::kDecode);
  slots.ClaimForDemand(1);
  EXPECT_DEATH(slots.ClaimForDemand(1), "has a slot");
}

TEST(LayerSlotsDeathTest, LeasesDoNotNest) {
  LayerSlots slots(4, 2, {});
  slots.BeginStep(1, Phase::kDecode);
  const int32_t slot = slots.ClaimForDemand(1);
  EXPECT_DEATH(slots.Lease(slot), "slot 0");
}

}  // namespace
}  // namespace bullpen
