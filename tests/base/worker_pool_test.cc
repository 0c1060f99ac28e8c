#include "base/worker_pool.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "base/cpu_affinity.h"

namespace bullpen {
namespace {

int CpusOfThisThread() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof(set), &set);
  return CPU_COUNT(&set);
}

// Every index of [0, count) is visited exactly once, by chunks that are not
// too wide and workers that exist.
void ExpectCovered(WorkerPool& pool, int64_t count, int64_t chunk) {
  std::vector<std::atomic<int>> visits(count);
  std::atomic<bool> sane{true};
  pool.ParallelFor(count, chunk, [&](int64_t begin, int64_t end, int worker) {
    const bool inline_run = begin == 0 && end == count;
    if (worker < 0 || worker >= pool.threads() || begin >= end ||
        (end - begin > chunk && !inline_run)) {
      sane = false;
    }
    for (int64_t i = begin; i < end; ++i) visits[i].fetch_add(1);
  });
  EXPECT_TRUE(sane);
  for (int64_t i = 0; i < count; ++i) ASSERT_EQ(visits[i].load(), 1) << i;
}

TEST(WorkerPoolTest, CoversEachIndexOnce) {
  for (int threads : {1, 2, 3, 7}) {
    WorkerPool pool(threads, /*pin=*/false);
    for (int64_t count : {0, 1, 2, 63, 64, 65, 1000}) {
      for (int64_t chunk : {1, 3, 64, 5000}) {
        ExpectCovered(pool, count, chunk);
      }
    }
  }
}

TEST(WorkerPoolTest, NegativeCountIsNothing) {
  WorkerPool pool(2);
  pool.ParallelFor(-5, 1, [](int64_t, int64_t, int) { FAIL(); });
}

TEST(WorkerPoolTest, SmallWorkStaysInTheCaller) {
  WorkerPool pool(3, /*pin=*/false);
  const std::thread::id caller = std::this_thread::get_id();
  int calls = 0;
  pool.ParallelFor(8, 8, [&](int64_t begin, int64_t end, int worker) {
    ++calls;
    EXPECT_EQ(begin, 0);
    EXPECT_EQ(end, 8);
    EXPECT_EQ(worker, 0);
    EXPECT_EQ(std::this_thread::get_id(), caller);
  });
  EXPECT_EQ(calls, 1);
}

TEST(WorkerPoolTest, EachWorkerNumberIsOneThread) {
  WorkerPool pool(4, /*pin=*/false);
  std::vector<std::atomic<std::thread::id>> thread_of(4);
  std::atomic<int> mixed{0};
  for (int round = 0; round < 200; ++round) {
    pool.ParallelFor(16, 1, [&](int64_t, int64_t, int worker) {
      std::thread::id none;
      const std::thread::id self = std::this_thread::get_id();
      if (!thread_of[worker].compare_exchange_strong(none, self) &&
          none != self) {
        mixed.fetch_add(1);
      }
    });
  }
  EXPECT_EQ(mixed, 0);
}

TEST(WorkerPoolTest, WritesOfTasksAreVisibleAfterwards) {
  // Plain ints: the thread sanitizer would see a missing edge.
  WorkerPool pool(3, /*pin=*/false);
  std::vector<int> values(300);
  for (int round = 1; round <= 500; ++round) {
    pool.ParallelFor(300, 7, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) values[i] += round;
    });
    const int expected = round * (round + 1) / 2;
    ASSERT_TRUE(std::all_of(values.begin(), values.end(),
                            [&](int v) { return v == expected; }))
        << "round " << round;
  }
}

TEST(WorkerPoolTest, JobsAfterIdleTimesAreComplete) {
  // Idle times on both sides of the moment at which workers fall asleep.
  WorkerPool pool(2);
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const auto idle = std::chrono::microseconds(
        std::uniform_int_distribution(0, 200)(random));
    const auto end = std::chrono::steady_clock::now() + idle;
    while (std::chrono::steady_clock::now() < end) std::this_thread::yield();
    ExpectCovered(pool, 10, 1);
  }
}

TEST(WorkerPoolTest, PoolsComeAndGo) {
  for (int i = 0; i < 50; ++i) {
    WorkerPool pool(1 + i % 4, /*pin=*/i % 2 == 0);
    if (i % 3 != 0) ExpectCovered(pool, 20, 1);
  }
}

// More threads than CPUs, so that some are late for the only job and wake while
// the pool goes: such a worker once slept through the stop.
TEST(WorkerPoolTest, GoesWhileWorkersAreLate) {
  std::vector<std::thread> makers;
  for (int m = 0; m < 3; ++m) {
    makers.emplace_back([m] {
      std::minstd_rand random(static_cast<uint32_t>(m) + 1);
      for (int round = 0; round < 1000; ++round) {
        WorkerPool pool(8, /*pin=*/false);
        const auto idle = std::chrono::microseconds(random() % 20);
        const auto end = std::chrono::steady_clock::now() + idle;
        while (std::chrono::steady_clock::now() < end) {
        }
        ExpectCovered(pool, 2, 1);
      }
    });
  }
  for (std::thread& maker : makers) maker.join();
}

TEST(WorkerPoolTest, PinnedCallerIsFreedWithThePool) {
  const int before = CpusOfThisThread();
  if (before < 2) GTEST_SKIP() << "this process has one CPU";
  {
    WorkerPool pool(2);
    ExpectCovered(pool, 10, 1);
    EXPECT_EQ(CpusOfThisThread(), 1);
  }
  EXPECT_EQ(CpusOfThisThread(), before);
}

TEST(WorkerPoolTest, PoolMadeOnAPinnedThreadStillHasAllCpus) {
  if (CpusOfThisThread() < 2) GTEST_SKIP() << "this process has one CPU";
  WorkerPool first(2);
  ExpectCovered(first, 10, 1);  // Pins this thread.
  WorkerPool second(3, /*pin=*/false);
  std::atomic<int> narrow{0};
  std::atomic<int> entered{0};
  second.ParallelFor(3, 1, [&](int64_t, int64_t, int worker) {
    // Each of the three takes one chunk: none leaves before all have come.
    entered.fetch_add(1);
    while (entered.load() < 3) std::this_thread::yield();
    if (worker != 0 && CpusOfThisThread() < 2) narrow.fetch_add(1);
  });
  EXPECT_EQ(narrow, 0);
}

// CPUs of the worker threads by number, the caller's first.
std::vector<std::vector<int>> CpusOfWorkers(WorkerPool& pool) {
  std::vector<std::vector<int>> cpus(pool.threads());
  std::atomic<int> entered{0};
  pool.ParallelFor(pool.threads(), 1, [&](int64_t, int64_t, int worker) {
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof(set), &set);
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cpus[worker].push_back(cpu);
    }
    // Each takes one chunk: none leaves before all have come.
    entered.fetch_add(1);
    while (entered.load() < pool.threads()) std::this_thread::yield();
  });
  return cpus;
}

TEST(WorkerPoolTest, EachWorkerRunsWhereItIsTold) {
  std::vector<int32_t> cpus = AllowedCpus();
  if (cpus.size() < 2) GTEST_SKIP() << "this process has one CPU";
  std::ranges::reverse(cpus);
  const int threads = static_cast<int>(cpus.size());
  {
    WorkerPool pool(threads, cpus);
    const std::vector<std::vector<int>> got = CpusOfWorkers(pool);
    for (int i = 0; i < threads; ++i) {
      EXPECT_EQ(got[i], std::vector<int>{cpus[i]}) << "worker " << i;
    }
  }
  EXPECT_EQ(CpusOfThisThread(), threads);
}

TEST(WorkerPoolTest, FewerCpusThanWorkersAreShared) {
  if (AllowedCpus().size() < 2) GTEST_SKIP() << "this process has one CPU";
  const int32_t last = AllowedCpus().back();
  WorkerPool pool(3, std::vector<int32_t>{last});
  for (const std::vector<int>& cpus : CpusOfWorkers(pool)) {
    EXPECT_EQ(cpus, std::vector<int>{last});
  }
}

TEST(WorkerPoolTest, OneWorkerMayUseAllItsCpus) {
  const int before = CpusOfThisThread();
  {
    WorkerPool all(1, AllowedCpus());
    EXPECT_EQ(CpusOfWorkers(all)[0].size(), AllowedCpus().size());
  }
  {
    WorkerPool one(1, std::vector<int32_t>{AllowedCpus().back()});
    EXPECT_EQ(CpusOfWorkers(one)[0], std::vector<int>{AllowedCpus().back()});
  }
  EXPECT_EQ(CpusOfThisThread(), before);
}

TEST(WorkerPoolTest, AddsUpTheTimeInJobsOnceAsked) {
  WorkerPool pool(2, /*pin=*/false);
  const auto work = [](int64_t, int64_t, int) {
    const auto end =
        std::chrono::steady_clock::now() + std::chrono::milliseconds(2);
    while (std::chrono::steady_clock::now() < end) {
    }
  };
  pool.ParallelFor(4, 1, work);
  EXPECT_EQ(pool.seconds(), 0);
  pool.MeasureTime();
  pool.ParallelFor(1, 1, work);
  const double one = pool.seconds();
  EXPECT_GE(one, 0.002);
  pool.ParallelFor(4, 1, work);
  EXPECT_GE(pool.seconds(), one + 0.004);
}

TEST(WorkerPoolDeathTest, MisuseIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(WorkerPool(0), "threads = 0");
  EXPECT_DEATH(WorkerPool(-1), "threads = -1");
  EXPECT_DEATH(
      {
        WorkerPool pool(2, /*pin=*/false);
        pool.ParallelFor(10, 0, [](int64_t, int64_t, int) {});
      },
      "chunk = 0");
  EXPECT_DEATH(
      {
        WorkerPool pool(2, /*pin=*/false);
        pool.ParallelFor(10, 1, [&](int64_t, int64_t, int) {
          pool.ParallelFor(10, 1, [](int64_t, int64_t, int) {});
        });
      },
      "inside a task");
}

}  // namespace
}  // namespace bullpen
