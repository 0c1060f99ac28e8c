#include "engine/scheduler.h"

#include "gtest/gtest.h"

namespace bullpen {
namespace {

constexpr Clock::time_point kNow = Clock::time_point(std::chrono::seconds(1));

std::unique_ptr<Sequence> MakeSequence(int32_t prompt, int32_t max_tokens) {
  auto sequence = std::make_unique<Sequence>();
  sequence->request.prompt.assign(prompt, 7);
  sequence->request.max_tokens = max_tokens;
  return sequence;
}

// A scheduler over its own pool, with the caller's part of a step.
class Fixture {
 public:
  Fixture(const SchedulerConfig& config, int32_t blocks)
      : Fixture(config, {{.blocks = blocks}}) {}
  Fixture(const SchedulerConfig& config, const std::vector<KvGroup>& groups)
      : pool_(groups, config.max_batch_tokens), scheduler_(config, pool_) {}

  Sequence* Add(int32_t prompt, int32_t max_tokens) {
    auto sequence = MakeSequence(prompt, max_tokens);
    Sequence* raw = sequence.get();
    scheduler_.Add(std::move(sequence));
    return raw;
  }

  Batch Step() {
    Batch batch = scheduler_.Plan(kNow);
    for (const Batch::Item& item : batch.items) {
      if (item.samples) item.sequence->output.push_back(9);
    }
    scheduler_.Commit(batch);
    return batch;
  }

  KvPool& pool() { return pool_; }
  Scheduler& scheduler() { return scheduler_; }

 private:
  KvPool pool_;
  Scheduler scheduler_;
};

TEST(Scheduler, CutsAPromptIntoChunksAndSamplesAtItsEnd) {
  Fixture f({.max_batch_tokens = 16, .max_sequences = 4}, 16);
  Sequence* sequence = f.Add(40, 4);
  Batch first = f.Step();
  ASSERT_EQ(first.items.size(), 1u);
  EXPECT_EQ(first.items[0].rows, 16);
  EXPECT_FALSE(first.items[0].samples);
  EXPECT_EQ(f.Step().items[0].first_position, 16);
  Batch last = f.Step();
  EXPECT_EQ(last.items[0].first_position, 32);
  EXPECT_EQ(last.items[0].rows, 8);
  EXPECT_TRUE(last.items[0].samples);
  EXPECT_EQ(sequence->computed, 40);
  EXPECT_EQ(f.Step().items[0].rows, 1);
  EXPECT_EQ(sequence->scheduled, kNow);
}

TEST(Scheduler, GivesBackBlocksThatLeftTheWindow) {
  Fixture f({.max_batch_tokens = 16, .max_sequences = 4},
            {{.window = 17, .blocks = 8}});
  Sequence* sequence = f.Add(32, 40);
  f.Step();
  f.Step();
  // The next row, at 32, attends to 16 to 32.
  EXPECT_EQ(sequence->kv[0].given_back, 1);
  EXPECT_EQ(f.pool().free_blocks(), 7);
  // Three blocks' worth of rows, and never more than three blocks.
  for (int step = 0; step < 40; ++step) {
    f.Step();
    EXPECT_GE(f.pool().free_blocks(), 5);
    EXPECT_EQ(sequence->kv[0].given_back, (sequence->computed - 16) / 16);
  }
  f.scheduler().Remove(sequence);
  EXPECT_EQ(f.pool().free_blocks(), 8);
}

TEST(Scheduler, EachGroupOfLayersGivesBackWhatLeftItsOwnWindow) {
  Fixture f({.max_batch_tokens = 16, .max_sequences = 1},
            {{.window = 17, .blocks = 3}, {.window = 0, .blocks = 8}});
  Sequence* sequence = f.Add(100, 28);
  while (sequence->tokens() < 128) {
    f.Step();
    EXPECT_EQ(sequence->kv[0].given_back,
              std::max(0, (sequence->computed - 16) / 16));
    EXPECT_EQ(sequence->kv[1].given_back, 0);
  }
  EXPECT_EQ(f.scheduler().preemptions(), 0);
  EXPECT_EQ(sequence->kv[1].blocks.size(), 8u);
  f.scheduler().Remove(sequence);
  EXPECT_EQ(f.pool().free_blocks(), 11);
}

TEST(Scheduler, APromptThatIsLongerThanAWindowNeedsNoMoreThanTheWindow) {
  Fixture f({.max_batch_tokens = 16, .max_sequences = 2},
            {{.window = 17, .blocks = 6}, {.window = 0, .blocks = 16}});
  f.Add(100, 4);
  f.Add(100, 4);
  while (f.scheduler().waiting() > 0) ASSERT_FALSE(f.Step().empty());
  EXPECT_EQ(f.scheduler().running(), 2);
  EXPECT_EQ(f.scheduler().preemptions(), 0);
}

TEST(Scheduler, PreemptsWhenAnyGroupRunsOut) {
  Fixture f({.max_batch_tokens = 64, .max_sequences = 2},
            {{.window = 64, .blocks = 3}, {.window = 0, .blocks = 8}});
  f.Add(16, 40);
  Sequence* young = f.Add(15, 40);
  for (int step = 0; step < 3; ++step) f.Step();
  EXPECT_EQ(f.scheduler().preemptions(), 1);
  EXPECT_TRUE(young->kv.empty());
  EXPECT_EQ(f.pool().free_blocks(), 1 + 6);
}

TEST(Scheduler, PutsDecodeRowsBeforePromptChunks) {
  Fixture f({.max_batch_tokens = 16, .max_sequences = 4}, 16);
  Sequence* a = f.Add(4, 8);
  Sequence* b = f.Add(5, 8);
  f.Step();
  Sequence* c = f.Add(40, 8);
  const Batch batch = f.Step();
  ASSERT_EQ(batch.items.size(), 3u);
  EXPECT_EQ(batch.items[0].sequence, a);
  EXPECT_EQ(batch.items[1].sequence, b);
  EXPECT_EQ(batch.items[2].sequence, c);
  EXPECT_EQ(batch.items[2].rows, 14);
  EXPECT_EQ(batch.rows, 16);
}

TEST(Scheduler, RunsAtMostMaxSequencesInOrderOfArrival) {
  Fixture f({.max_batch_tokens = 64, .max_sequences = 2}, 16);
  Sequence* a = f.Add(4, 8);
  Sequence* b = f.Add(4, 8);
  Sequence* c = f.Add(4, 8);
  EXPECT_EQ(f.Step().items.size(), 2u);
  EXPECT_EQ(f.scheduler().queued(), 1);
  f.scheduler().Remove(a);
  const Batch batch = f.Step();
  ASSERT_EQ(batch.items.size(), 2u);
  EXPECT_EQ(batch.items[0].sequence, b);
  EXPECT_EQ(batch.items[1].sequence, c);
  EXPECT_EQ(f.scheduler().queued(), 0);
}

TEST(Scheduler, PromptOnlyNeverSamples) {
  Fixture f({.max_batch_tokens = 16, .max_sequences = 2}, 4);
  Sequence* sequence = f.Add(10, 0);
  const Batch batch = f.Step();
  EXPECT_FALSE(batch.items[0].samples);
  EXPECT_EQ(sequence->computed, 10);
  EXPECT_TRUE(f.Step().empty());
}

TEST(Scheduler, WaitsWhileThePromptDoesNotFitAndLetsNobodyPass) {
  Fixture f({.max_batch_tokens = 16, .max_sequences = 4}, 4);
  Sequence* a = f.Add(16, 40);
  f.Step();
  f.Add(64, 1);  // needs all four blocks
  f.Add(1, 1);   // would fit
  EXPECT_EQ(f.Step().items.size(), 1u);
  EXPECT_EQ(f.scheduler().waiting(), 2);
  f.scheduler().Remove(a);
  EXPECT_EQ(f.Step().rows, 16);
}

TEST(Scheduler, PreemptsTheYoungestAndComputesItAgain) {
  Fixture f({.max_batch_tokens = 64, .max_sequences = 2}, 3);
  Sequence* old = f.Add(16, 40);
  Sequence* young = f.Add(15, 40);
  f.Step();  // old: 16 tokens in one block, then a second; young: one block
  f.Step();
  EXPECT_EQ(f.pool().free_blocks(), 0);
  f.Step();  // young needs its second block and is the youngest itself
  EXPECT_EQ(f.scheduler().preemptions(), 1);
  EXPECT_EQ(young->computed, 0);
  EXPECT_TRUE(young->kv.empty());
  EXPECT_EQ(young->output.size(), 2u);
  EXPECT_EQ(f.scheduler().waiting(), 1);
  EXPECT_EQ(f.scheduler().queued(), 0);
  EXPECT_EQ(old->output.size(), 3u);

  f.scheduler().Remove(old);
  const Batch again = f.Step();
  ASSERT_EQ(again.items.size(), 1u);
  EXPECT_EQ(again.items[0].first_position, 0);
  EXPECT_EQ(again.items[0].rows, 17);
  EXPECT_TRUE(again.items[0].samples);
}

TEST(Scheduler, AnOlderSequenceTakesTheBlocksOfAYoungerOne) {
  Fixture f({.max_batch_tokens = 64, .max_sequences = 2}, 2);
  Sequence* old = f.Add(15, 40);
  Sequence* young = f.Add(3, 40);
  f.Step();
  f.Step();
  const Batch batch = f.Step();
  ASSERT_EQ(batch.items.size(), 1u);
  EXPECT_EQ(batch.items[0].sequence, old);
  EXPECT_TRUE(young->kv.empty());
  EXPECT_EQ(f.scheduler().preemptions(), 1);
}

TEST(Scheduler, ASequenceThatFillsThePoolAloneFinishes) {
  Fixture f({.max_batch_tokens = 8, .max_sequences = 4}, 4);
  Sequence* big = f.Add(10, 54);
  f.Add(10, 54);
  for (int step = 0; big->output.size() < 54; ++step) {
    ASSERT_LT(step, 200);
    f.Step();
  }
  EXPECT_EQ(big->tokens(), 64);
}

TEST(Scheduler, RemoveGivesAllBlocksBackInEveryPhase) {
  Fixture f({.max_batch_tokens = 16, .max_sequences = 2}, 8);
  Sequence* decoding = f.Add(8, 8);
  Sequence* prefilling = f.Add(40, 8);
  Sequence* waiting = f.Add(8, 8);
  f.Step();
  EXPECT_EQ(f.scheduler().All().size(), 3u);
  EXPECT_LT(f.pool().free_blocks(), 8);
  EXPECT_EQ(f.scheduler().Remove(prefilling)->request.prompt.size(), 40u);
  f.scheduler().Remove(waiting);
  f.scheduler().Remove(decoding);
  EXPECT_EQ(f.pool().free_blocks(), 8);
  EXPECT_TRUE(f.scheduler().empty());
  EXPECT_EQ(f.scheduler().queued(), 0);
}

TEST(Scheduler, ASmallBudgetServesTheOldestFirst) {
  Fixture f({.max_batch_tokens = 1, .max_sequences = 4}, 8);
  Sequence* a = f.Add(2, 2);
  f.Add(1, 2);
  f.Step();
  f.Step();
  EXPECT_EQ(a->output.size(), 1u);
  const Batch batch = f.Step();
  EXPECT_EQ(batch.items[0].sequence, a);
  EXPECT_EQ(batch.rows, 1);
}

}  // namespace
}  // namespace bullpen
