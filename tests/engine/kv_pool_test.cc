#include "engine/kv_pool.h"

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

TEST(KvPoolDeathTest, RefusesMoreThanItHas) {
  KvPool pool(std::vector<KvGroup>{{.blocks = 2}}, 16);
  std::vector<KvTable> foreign = {{.blocks = {0, 1, 2}}};
  EXPECT_DEATH(pool.FreeAll(foreign), "more blocks given back");
}

}  // namespace
}  // namespace bullpen
