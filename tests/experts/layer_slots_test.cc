#include "engine/experts/layer_slots.h"

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

TEST(LayerSlots, PrefillFillsEmptySlotsFirst) {
  LayerSlots slots(64, 16, {});
  slots.BeginStep(100, Phase::kPrefill);
  for (int32_t e = 0; e < 16; ++e) Fill(slots, e);
  EXPECT_EQ(slots.resident(), 16);
  for (int32_t e = 0; e < 16; ++e) EXPECT_GE(slots.Find(e), 0);
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
