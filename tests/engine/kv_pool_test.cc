#include "engine/kv_pool.h"

#include <set>

#include "gtest/gtest.h"

namespace bullpen {
namespace {

TEST(KvPool, GivesEachBlockOnce) {
  KvPool pool(8);
  std::vector<int32_t> a, b;
  ASSERT_TRUE(pool.Allocate(5, a));
  ASSERT_TRUE(pool.Allocate(3, b));
  EXPECT_EQ(pool.free_blocks(), 0);
  std::set<int32_t> all(a.begin(), a.end());
  all.insert(b.begin(), b.end());
  EXPECT_EQ(all.size(), 8u);
  EXPECT_EQ(*all.begin(), 0);
  EXPECT_EQ(*all.rbegin(), 7);
}

TEST(KvPool, TakesNoneWhenThereAreTooFew) {
  KvPool pool(4);
  std::vector<int32_t> table = {};
  ASSERT_TRUE(pool.Allocate(3, table));
  EXPECT_FALSE(pool.Allocate(2, table));
  EXPECT_EQ(table.size(), 3u);
  EXPECT_EQ(pool.free_blocks(), 1);
  pool.Free(table);
  EXPECT_TRUE(table.empty());
  EXPECT_EQ(pool.free_blocks(), 4);
}

TEST(KvPoolDeathTest, RefusesMoreThanItHas) {
  KvPool pool(2);
  std::vector<int32_t> foreign = {0, 1, 2};
  EXPECT_DEATH(pool.Free(foreign), "more blocks given back");
}

}  // namespace
}  // namespace bullpen
