#include <map>
#include <random>
#include <set>

#include "engine/scheduler.h"
#include "gtest/gtest.h"
#include "kernels/kv_layout.h"

namespace bullpen {
namespace {

constexpr Clock::time_point kNow = Clock::time_point(std::chrono::seconds(1));

// Arrivals, ends and cancellations at random, with the promises of scheduler.h
// checked at every step.
class Simulation {
 public:
  explicit Simulation(uint64_t seed)
      : random_(seed),
        config_{.max_batch_tokens = Draw(1, 40), .max_sequences = Draw(1, 6)},
        groups_(DrawGroups()),
        pool_(groups_, config_.max_batch_tokens),
        scheduler_(config_, pool_) {}

  void Run() {
    int arrivals = 60;
    for (int step = 0; arrivals > 0 || !scheduler_.empty(); ++step) {
      ASSERT_LT(step, 100000) << "no end in sight";
      if (arrivals > 0 && Draw(0, 3) == 0) {
        Arrive();
        --arrivals;
      }
      if (Draw(0, 40) == 0) CancelOne();
      Step();
      if (testing::Test::HasFatalFailure()) return;
    }
    EXPECT_EQ(pool_.free_blocks(), pool_.blocks());
    EXPECT_EQ(finished_ + cancelled_, 60);
    EXPECT_EQ(scheduler_.queued(), 0);
  }

 private:
  int32_t Draw(int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random_);
  }

  // One to three groups, with windows or without; some too small for what
  // their window may need at a time.
  std::vector<KvGroup> DrawGroups() {
    std::vector<KvGroup> groups(static_cast<size_t>(Draw(1, 3)));
    for (KvGroup& group : groups) {
      group.window = Draw(0, 1) * Draw(1, 100);
      group.blocks = Draw(4, 16);
    }
    return groups;
  }

  void Arrive() {
    const int32_t limit = std::min(pool_.longest(), 300);
    auto sequence = std::make_unique<Sequence>();
    const int32_t prompt = Draw(1, limit - 1);
    sequence->request.prompt.assign(prompt, 1);
    sequence->request.max_tokens = Draw(0, std::min(60, limit - prompt));
    arrival_[sequence.get()] = next_arrival_++;
    scheduler_.Add(std::move(sequence));
  }

  void CancelOne() {
    const std::vector<Sequence*> all = scheduler_.All();
    if (all.empty()) return;
    Take(all[Draw(0, static_cast<int32_t>(all.size()) - 1)]);
    ++cancelled_;
  }

  void Take(Sequence* sequence) {
    arrival_.erase(sequence);
    EXPECT_TRUE(scheduler_.Remove(sequence)->kv.empty());
  }

  void Step() {
    const bool had_work = !scheduler_.empty();
    const int64_t preempted = scheduler_.preemptions();
    const int32_t running = scheduler_.running();
    const Batch batch = scheduler_.Plan(kNow);
    CheckBatch(batch);
    CheckBlocks();
    CheckOrder();
    if (testing::Test::HasFatalFailure()) return;
    if (had_work && scheduler_.preemptions() == preempted) {
      ASSERT_FALSE(batch.empty()) << "work, but none was planned";
    }
    if (const int64_t back = scheduler_.preemptions() - preempted; back > 0) {
      ASSERT_EQ(scheduler_.running(), running - back)
          << "somebody came in, or back, in the step of a preemption";
    }
    for (const Batch::Item& item : batch.items) {
      if (item.samples) item.sequence->output.push_back(2);
    }
    scheduler_.Commit(batch);
    for (const Batch::Item& item : batch.items) EndIfDone(*item.sequence);
  }

  void EndIfDone(Sequence& sequence) {
    const bool full = sequence.output.size() ==
                      static_cast<size_t>(sequence.request.max_tokens);
    const bool prompt_done =
        sequence.computed >=
        static_cast<int32_t>(sequence.request.prompt.size());
    if (!full || !prompt_done) return;
    Take(&sequence);
    ++finished_;
  }

  void CheckBatch(const Batch& batch) {
    int32_t rows = 0;
    bool prompts = false;
    int64_t last_arrival = -1;
    for (const Batch::Item& item : batch.items) {
      const Sequence& sequence = *item.sequence;
      ASSERT_GT(item.rows, 0);
      rows += item.rows;
      ASSERT_EQ(item.first_position, sequence.computed);
      const int32_t end = item.first_position + item.rows;
      ASSERT_LE(end, sequence.tokens());
      ASSERT_EQ(sequence.kv.size(), groups_.size());
      for (const KvTable& table : sequence.kv) {
        ASSERT_GE(table.blocks.size() * kernels::kKvBlockTokens,
                  static_cast<size_t>(end));
      }
      CheckWindows(item);
      ASSERT_EQ(item.samples,
                end == sequence.tokens() && sequence.request.max_tokens > 0);
      const bool decodes = !sequence.output.empty() && item.rows == 1;
      ASSERT_FALSE(decodes && prompts) << "a decode row after a prompt chunk";
      prompts = prompts || end < sequence.tokens();
      ASSERT_GT(arrival_.at(item.sequence), last_arrival);
      last_arrival = arrival_.at(item.sequence);
    }
    ASSERT_EQ(rows, batch.rows);
    ASSERT_LE(rows, config_.max_batch_tokens);
    ASSERT_LE(scheduler_.running(), config_.max_sequences);
  }

  // Whatever a row attends to is held; what none attends to is not.
  void CheckWindows(const Batch::Item& item) {
    for (size_t g = 0; g < groups_.size(); ++g) {
      const int32_t window = groups_[g].window;
      const int32_t first =
          window == 0 ? 0 : std::max(0, item.first_position - window + 1);
      ASSERT_EQ(item.sequence->kv[g].given_back,
                first / kernels::kKvBlockTokens);
    }
  }

  // Each block is free or has one owner, and nobody holds more than it uses.
  void CheckBlocks() {
    std::set<std::pair<size_t, int32_t>> owned;
    for (const Sequence* sequence : scheduler_.All()) {
      for (size_t g = 0; g < sequence->kv.size(); ++g) {
        const KvTable& table = sequence->kv[g];
        for (size_t i = static_cast<size_t>(table.given_back);
             i < table.blocks.size(); ++i) {
          ASSERT_TRUE(owned.insert({g, table.blocks[i]}).second)
              << "two owners of " << table.blocks[i] << " in group " << g;
        }
        ASSERT_LE(static_cast<int64_t>(table.blocks.size()),
                  kernels::KvBlocksFor(sequence->tokens()));
      }
    }
    ASSERT_EQ(static_cast<int32_t>(owned.size()) + pool_.free_blocks(),
              pool_.blocks());
  }

  // First come, first served: nobody waits behind a younger running one.
  void CheckOrder() {
    int64_t last = -1;
    for (Sequence* sequence : scheduler_.All()) {
      ASSERT_GT(arrival_.at(sequence), last);
      last = arrival_.at(sequence);
    }
  }

  std::mt19937_64 random_;
  SchedulerConfig config_;
  std::vector<KvGroup> groups_;
  KvPool pool_;
  Scheduler scheduler_;
  std::map<Sequence*, int64_t> arrival_;
  int64_t next_arrival_ = 0;
  int finished_ = 0;
  int cancelled_ = 0;
};

TEST(SchedulerSimulation, KeepsItsPromises) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Simulation(seed).Run();
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace bullpen
