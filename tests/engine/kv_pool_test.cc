#include "engine/kv_pool.h"

#include <random>
#include <set>

#include "gtest/gtest.h"

namespace bullpen {
namespace {

TEST(KvPool, GivesEachBlockOnce) {
  KvPool pool(std::vector<KvGroup>{{.blocks = 8}}, 16);
  std::vector<KvTable> a, b;
  ASSERT_TRUE(pool.Extend(a, 5 * 16));
  ASSERT_TRUE(pool.Extend(b, 2 * 16 + 1));
  EXPECT_EQ(pool.free_blocks(), 0);
  std::set<int32_t> all(a[0].blocks.begin(), a[0].blocks.end());
  all.insert(b[0].blocks.begin(), b[0].blocks.end());
  EXPECT_EQ(all.size(), 8u);
  EXPECT_EQ(*all.begin(), 0);
  EXPECT_EQ(*all.rbegin(), 7);
}

TEST(KvPool, TakesNoneInAnyGroupWhenOneHasTooFew) {
  KvPool pool(std::vector<KvGroup>{{.blocks = 9}, {.window = 40, .blocks = 4}},
              16);
  std::vector<KvTable> tables;
  ASSERT_TRUE(pool.Extend(tables, 3 * 16));
  EXPECT_FALSE(pool.Extend(tables, 5 * 16));
  EXPECT_EQ(tables[0].blocks.size(), 3u);
  EXPECT_EQ(tables[1].blocks.size(), 3u);
  EXPECT_EQ(pool.free_blocks(), 6 + 1);
  pool.FreeAll(tables);
  EXPECT_TRUE(tables.empty());
  EXPECT_EQ(pool.free_blocks(), 13);
}

TEST(KvPool, TakesBackWhatTheNextRowDoesNotSee) {
  KvPool pool(std::vector<KvGroup>{{.window = 20, .blocks = 8}, {.blocks = 8}},
              16);
  std::vector<KvTable> tables;
  ASSERT_TRUE(pool.Extend(tables, 64));
  pool.FreePassed(tables, 34);  // It sees 15 to 34.
  EXPECT_EQ(pool.free_blocks(), 8);
  pool.FreePassed(tables, 35);
  EXPECT_EQ(tables[0].given_back, 1);
  EXPECT_EQ(tables[1].given_back, 0);
  EXPECT_EQ(pool.free_blocks(), 8 + 1);
  std::vector<KvTable> other;
  EXPECT_TRUE(pool.Extend(other, 64));
  EXPECT_FALSE(pool.Extend(tables, 65));
  pool.FreeAll(other);
  pool.FreeAll(tables);
  EXPECT_EQ(pool.free_blocks(), 16);
}

TEST(KvPool, HasRoomForWhatGoesRoundInAWindow) {
  // Rows 0 to 15 of a step see up to 20 + 15 keys: four blocks at worst.
  KvPool pool(std::vector<KvGroup>{{.window = 20, .blocks = 4}, {.blocks = 50}},
              16);
  EXPECT_EQ(pool.longest(), 50 * 16);
  EXPECT_TRUE(pool.HasRoomFor(800));
  EXPECT_FALSE(pool.HasRoomFor(801));
  std::vector<KvTable> tables;
  ASSERT_TRUE(pool.Extend(tables, 1));
  EXPECT_FALSE(pool.HasRoomFor(64));
  EXPECT_TRUE(pool.HasRoomFor(48));
}

TEST(KvPool, AWindowThatDoesNotGoRoundLimitsTheLength) {
  const KvPool pool(
      std::vector<KvGroup>{{.window = 20, .blocks = 3}, {.blocks = 50}}, 16);
  EXPECT_EQ(pool.longest(), 3 * 16);
}

// Some sequences decode; then one takes what is left of the step, another
// begins with it, or none does. No order of such steps finds too few blocks.
TEST(KvPool, OfTheBlocksThatSequencesNeedTogetherNeverRunsOut) {
  constexpr int32_t kSequences = 5;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    const int32_t window = 1 + static_cast<int32_t>(random() % 70);
    const int32_t step_rows = 8 + static_cast<int32_t>(random() % 100);
    const KvLimits limits = {.context = 4000, .step_rows = step_rows};
    const int64_t blocks = KvBlocksNeeded(window, limits, kSequences);
    KvPool pool(std::vector<KvGroup>{{.window = window,
                                      .blocks = static_cast<int32_t>(blocks)}},
                step_rows);
    std::vector<KvTable> tables[kSequences];
    int32_t computed[kSequences] = {};
    const auto compute = [&](size_t s, int32_t rows) {
      computed[s] += rows;
      ASSERT_TRUE(pool.Extend(tables[s], computed[s])) << "seed " << seed;
    };
    for (int32_t step = 0; step < 400; ++step) {
      int32_t left = step_rows;
      const size_t chosen = random() % kSequences;
      for (size_t s = 0; s < kSequences; ++s) {
        if (computed[s] == 0 || s == chosen) continue;
        compute(s, 1);
        --left;
      }
      if (computed[chosen] == 0) {
        EXPECT_TRUE(pool.HasRoomFor(limits.context)) << "seed " << seed;
      }
      if (random() % 3 != 0) compute(chosen, left);
      for (size_t s = 0; s < kSequences; ++s) {
        pool.FreePassed(tables[s], computed[s]);
        if (computed[s] > 2000 || random() % 50 == 0) {
          pool.FreeAll(tables[s]);
          computed[s] = 0;
        }
      }
    }
  }
}

TEST(KvPoolDeathTest, RefusesMoreThanItHas) {
  KvPool pool(std::vector<KvGroup>{{.blocks = 2}}, 16);
  std::vector<KvTable> foreign = {{.blocks = {0, 1, 2}}};
  EXPECT_DEATH(pool.FreeAll(foreign), "more blocks given back");
}

}  // namespace
}  // namespace bullpen
