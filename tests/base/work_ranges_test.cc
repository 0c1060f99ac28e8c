#include "base/work_ranges.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

namespace bullpen {
namespace {

std::vector<int64_t> TakeAll(WorkRanges& ranges, int worker) {
  std::vector<int64_t> taken;
  while (const std::optional<int64_t> item = ranges.Take(worker)) {
    taken.push_back(*item);
  }
  return taken;
}

TEST(WorkRangesTest, EachWorkerStartsWithAdjacentItemsInOrder) {
  WorkRanges ranges(3);
  ranges.Reset(9);
  for (int64_t i = 0; i < 3; ++i) {
    for (int worker = 0; worker < 3; ++worker) {
      EXPECT_EQ(ranges.Take(worker), 3 * worker + i);
    }
  }
  for (int worker = 0; worker < 3; ++worker) {
    EXPECT_EQ(ranges.Take(worker), std::nullopt);
  }
}

TEST(WorkRangesTest, WhoHasNoneLeftTakesHalfOfTheMost) {
  WorkRanges ranges(3);
  ranges.Reset(30);  // [0, 10), [10, 20), [20, 30)
  for (int i = 0; i < 4; ++i) ranges.Take(1);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(ranges.Take(0), i);
  EXPECT_EQ(ranges.Take(0), 25);  // Worker 2 has ten, worker 1 six.
  EXPECT_EQ(ranges.Take(2), 20);
  EXPECT_EQ(TakeAll(ranges, 0),
            (std::vector<int64_t>{26, 27, 28, 29,  // what it took over
                                  17, 18, 19,      // of worker 1's six
                                  23, 24,          // of worker 2's four
                                  15, 16, 22, 14, 21}))
      << "halves, the largest first";
}

TEST(WorkRangesTest, OneWorkerAloneTakesAllInOrder) {
  WorkRanges ranges(1);
  for (int64_t count : {0, 1, 5}) {
    ranges.Reset(count);
    const std::vector<int64_t> taken = TakeAll(ranges, 0);
    EXPECT_EQ(std::ssize(taken), count);
    EXPECT_TRUE(std::ranges::is_sorted(taken));
  }
}

TEST(WorkRangesTest, EachItemIsTakenOnceInAnyTurns) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    const int workers = std::uniform_int_distribution(1, 9)(random);
    const int count = std::uniform_int_distribution(0, 40)(random);
    WorkRanges ranges(workers);
    ranges.Reset(count);
    std::vector<int> taken(count);
    // Some workers never come.
    const int present = std::uniform_int_distribution(1, workers)(random);
    std::vector<bool> done(workers);
    while (std::count(done.begin(), done.begin() + present, true) < present) {
      const int worker = std::uniform_int_distribution(0, present - 1)(random);
      const std::optional<int64_t> item = ranges.Take(worker);
      done[worker] = !item.has_value();
      if (item) ++taken[*item];
    }
    ASSERT_TRUE(std::ranges::all_of(taken, [](int n) { return n == 1; }))
        << "round " << round;
  }
}

TEST(WorkRangesTest, EachItemIsTakenOnceByThreads) {
  constexpr int kWorkers = 4;
  constexpr int kCount = 5000;
  WorkRanges ranges(kWorkers);
  for (int round = 0; round < 50; ++round) {
    ranges.Reset(kCount);
    std::vector<std::atomic<int>> taken(kCount);
    std::vector<std::thread> threads;
    for (int worker = 0; worker < kWorkers; ++worker) {
      threads.emplace_back([&, worker] {
        while (const std::optional<int64_t> item = ranges.Take(worker)) {
          taken[*item].fetch_add(1);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (int i = 0; i < kCount; ++i) ASSERT_EQ(taken[i].load(), 1) << i;
  }
}

TEST(WorkRangesDeathTest, CountsBeyondAWordAreABug) {
  WorkRanges ranges(2);
  EXPECT_DEATH(ranges.Reset(int64_t{1} << 32), "count = 4294967296");
  EXPECT_DEATH(ranges.Reset(-1), "count = -1");
}

}  // namespace
}  // namespace bullpen
