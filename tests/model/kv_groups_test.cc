#include "engine/model/kv_groups.h"

#include "engine/model/kv_shape.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

ModelConfig WithWindows(const std::vector<int32_t>& windows) {
  ModelConfig config;
  for (const int32_t window : windows) {
    config.layers.push_back({.window = window});
  }
  return config;
}

TEST(KvGroups, AreTheDifferentWindowsInTheOrderOfTheirLayers) {
  const auto groups = KvGroupsOf(WithWindows({8, 0, 128, 0, 8, 0}));
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_EQ(groups[0].window, 8);
  EXPECT_EQ(groups[0].layers, 2);
  EXPECT_EQ(groups[1].window, 0);
  EXPECT_EQ(groups[1].layers, 3);
  EXPECT_EQ(groups[2].window, 128);
  EXPECT_EQ(groups[2].layers, 1);
  EXPECT_EQ(FindKvGroup(groups, 128), 2);
}

// Every start in a block, every window and number of rows, counted.
TEST(KvGroups, NeedWhatTheRowsOfAStepSeeAtWorst) {
  for (int32_t window = 1; window <= 50; ++window) {
    for (int32_t rows = 1; rows <= 40; ++rows) {
      int32_t most = 0;
      for (int32_t position = 0; position + rows <= 400; ++position) {
        const int32_t first = std::max(0, position - window + 1);
        const int32_t last = position + rows - 1;
        most = std::max(most, last / 16 - first / 16 + 1);
        EXPECT_EQ(KvBlocksPassed(window, position), first / 16);
      }
      EXPECT_EQ(KvBlocksNeeded(window, {.context = 400, .step_rows = rows}),
                most)
          << "window " << window << ", rows " << rows;
    }
  }
  EXPECT_EQ(KvBlocksNeeded(300, {.context = 100, .step_rows = 16}), 7);
  EXPECT_EQ(KvBlocksNeeded(0, {.context = 100, .step_rows = 16}), 7);
  // No more than each needs alone.
  EXPECT_EQ(KvBlocksNeeded(300, {.context = 100, .step_rows = 16}, 4), 4 * 7);
}

TEST(KvGroups, FixedTablesGoRoundWithinTheirOwnBlocks) {
  const std::vector<KvGroup> groups = {{.window = 20, .blocks = 9},
                                       {.window = 0, .blocks = 50}};
  const KvLimits limits = {.context = 320, .step_rows = 16};
  ASSERT_EQ(KvContexts(groups, limits), 2);
  const auto tables = FixedKvTables(groups, limits, 1);
  for (int32_t i = 0; i < 20; ++i) {
    EXPECT_EQ(tables[0].blocks[i], 4 + i % 4);
    EXPECT_EQ(tables[1].blocks[i], 20 + i);
  }
}

// gpt-oss-20b: every second of 24 layers sees 128 keys, 8 KV heads of 64.
class GptOssSizes : public testing::Test {
 protected:
  static KvSizes Sizes(std::vector<int32_t> windows) {
    ModelConfig config = WithWindows(windows);
    config.kv_heads = 8;
    config.head_dim = 64;
    config.value_dim = 64;
    return KvSizes(config, {.context = 131072, .step_rows = 256}, 8,
                   KvShape(config, kernels::KvType::kF32).block_bytes());
  }
  static std::vector<int32_t> Windows(int32_t window) {
    std::vector<int32_t> windows(24);
    for (size_t l = 0; l < windows.size(); l += 2) windows[l] = window;
    return windows;
  }
};

TEST_F(GptOssSizes, OfALongContextAreHalfOfThoseWithoutWindows) {
  const KvSizes kv = Sizes(Windows(128));
  const KvSizes all = Sizes(Windows(0));
  constexpr int64_t kBlock = 16 * 8 * (64 + 64) * 4;  // of a layer
  EXPECT_EQ(all.Bytes(all.least()), 24 * 8192 * kBlock);
  // 8 sequences that decode hold 9 blocks each; one that begins, 16 more.
  EXPECT_EQ(kv.Bytes(kv.least()), (12 * 8192 + 12 * 95) * kBlock);
  EXPECT_LT(static_cast<double>(kv.Bytes(kv.least())),
            0.51 * static_cast<double>(all.Bytes(all.least())));
  EXPECT_EQ(kv.Bytes(kv.most()), (12 * 8 * 8192 + 12 * 95) * kBlock);
}

TEST_F(GptOssSizes, FitEveryBudgetAndUseIt) {
  const KvSizes kv = Sizes(Windows(128));
  const int64_t step = kv.Bytes(1);
  for (int64_t bytes = 0; bytes < 600 * step; bytes += step / 3 + 1) {
    const int32_t size = kv.SizeFor(bytes);
    EXPECT_LE(kv.Bytes(size), bytes);
    EXPECT_GT(kv.Bytes(size + 1), bytes);
  }
}

TEST(KvSizes, OfOneLayerFitExactly) {
  const KvSizes kv(WithWindows({0}), {.context = 160, .step_rows = 16}, 1, 100);
  EXPECT_EQ(kv.SizeFor(10 * 100), 10);
  EXPECT_EQ(kv.SizeFor(10 * 100 - 1), 9);
}

TEST_F(GptOssSizes, GiveAWindowNoMoreThanTheOthersUntilItHasAllItCanUse) {
  const KvSizes kv = Sizes(Windows(128));
  for (const int32_t size : {1, 94, 95, 96, 10000}) {
    const auto groups = kv.Groups(size);
    EXPECT_EQ(groups[0].blocks, std::min(size, 95));
    EXPECT_EQ(groups[1].blocks, size);
  }
}

}  // namespace
}  // namespace bullpen
