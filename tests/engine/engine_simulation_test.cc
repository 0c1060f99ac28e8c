// The whole engine over a small model, with a disk that delays, fails and lies
// by seed, budgets, policies and guesses by seed, and requests that leave.

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "base/check.h"
#include "engine/engine.h"
#include "gtest/gtest.h"
#include "spdlog/spdlog.h"
#include "tests/engine/engine_fixture.h"
#include "tests/fakes/decoder.h"
#include "tests/fakes/fake_blob_reader.h"

namespace bullpen {
namespace {

constexpr char kSource[] = "tests/golden/qwen3_moe";
constexpr int32_t kExperts = 8;
constexpr int32_t kTokens = 6;
constexpr uint64_t kSeeds = 1000;

struct Outcome {
  int32_t whole = 0;
  int32_t failed = 0;
  int32_t cancelled = 0;
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed) : random_(seed) {
    absl::StatusOr<PackedModel> packed =
        PackedModel::Open(PackedForTest(kSource));
    CHECK(packed.ok()) << packed.status();
    static const auto* const files = new std::vector<std::vector<std::byte>>(
        FakeBlobReader::Load(packed->catalog().files));
    auto reader = std::make_unique<FakeBlobReader>(*files);
    const double trouble = Draw(0, 2) * 2e-3;
    reader->SetFaults({.fail = trouble,
                       .shorten = trouble,
                       .corrupt = trouble,
                       .yields = Draw(0, 3)},
                      seed);
    const ModelOptions options = DrawOptions(*packed);
    absl::StatusOr<std::unique_ptr<Model>> model =
        Model::Load(*std::move(packed), options, metrics_, std::move(reader));
    CHECK(model.ok()) << model.status();
    engine_ =
        std::make_unique<Engine>(*std::move(model),
                                 EngineConfig{.max_sequences = Draw(1, 3),
                                              .max_batch_tokens = Draw(2, 32)},
                                 metrics_);
  }

  // Some requests at once, right ones as `right` has them by prompt.
  void Run(const std::vector<std::vector<int32_t>>& right, Outcome& outcome) {
    std::vector<Client> clients(static_cast<size_t>(Draw(1, 4)));
    for (Client& client : clients) {
      client.prompt = Draw(0, static_cast<int32_t>(right.size()) - 1);
      client.leaves_after = Draw(-6, kTokens);
      std::vector<Submission> submissions;
      submissions.push_back(
          {Greedy(Prompt(client.prompt), kTokens), client.reader.stream()});
      ASSERT_TRUE(engine_->Submit(std::move(submissions)).ok());
      if (client.leaves_after == 0) client.reader.stream()->Cancel();
    }
    for (Client& client : clients) {
      if (client.leaves_after <= 0) continue;
      client.reader.AwaitTokens(static_cast<size_t>(client.leaves_after));
      client.reader.stream()->Cancel();
    }
    for (Client& client : clients) {
      Check(client, right[client.prompt], outcome);
    }
    EXPECT_EQ(metrics_.requests_waiting.Value(), 0);
    EXPECT_EQ(metrics_.requests_running.Value(), 0);
    EXPECT_EQ(metrics_.kv_blocks_used.Value(), 0);
    engine_->Stop();
    CheckBooks();
  }

  static std::vector<int32_t> Prompt(int32_t number) {
    return MakePrompt(3 + 4 * number, number);
  }

 private:
  struct Client {
    int32_t prompt = 0;
    int32_t leaves_after = 0;  // tokens; below 0: it stays
    Reader reader;
  };

  int32_t Draw(int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random_);
  }

  ModelOptions DrawOptions(const PackedModel& packed) {
    ModelOptions options;
    options.threads = 1;
    options.context = 128;
    options.memory.expert_bytes = ExpertBytesFor(packed, Draw(2, kExperts));
    options.policy = std::vector{"crf", "lru", "lfu"}[Draw(0, 2)];
    options.prefetch = std::vector{"on", "auto", "off"}[Draw(0, 2)];
    options.prefetch_horizon = Draw(1, 2);
    options.transfer_threads = Draw(1, 2);
    options.oracle_window = Draw(0, 1) * 4;
    if (Draw(0, 1) == 1) {
      options.expert_slots = "shared";
      options.layer_floor = Draw(0, 2);
    }
    return options;
  }

  // It ended once, and told nothing that is not so.
  static void Check(Client& client, const std::vector<int32_t>& right,
                    Outcome& outcome) {
    const absl::Status status = client.reader.Wait().status;
    const std::vector<int32_t> ids = client.reader.ids();
    ASSERT_LE(ids.size(), right.size());
    EXPECT_TRUE(std::equal(ids.begin(), ids.end(), right.begin()));
    if (status.ok()) {
      EXPECT_EQ(ids, right);
      ++outcome.whole;
    } else if (absl::IsCancelled(status)) {
      EXPECT_GE(client.leaves_after, 0);
      ++outcome.cancelled;
    } else {
      EXPECT_TRUE(absl::IsDataLoss(status)) << status;
      ++outcome.failed;
    }
  }

  // The parts are the whole, for lookups, slots and their memory.
  void CheckBooks() {
    const CacheSnapshot cache = engine_->cache_snapshot();
    uint64_t lookups = 0;
    uint64_t hits = 0;
    int64_t slot_bytes = 0;
    int64_t resident_bytes = 0;
    for (const CacheSnapshot::Layer& layer : cache.layers) {
      lookups += layer.lookups;
      hits += layer.hits;
      slot_bytes += layer.slots * layer.slot_bytes;
      resident_bytes += std::ssize(layer.resident) * layer.slot_bytes;
    }
    EXPECT_EQ(lookups, cache.decode.lookups() + cache.prefill.lookups());
    EXPECT_EQ(hits, cache.decode.hits() + cache.prefill.hits());
    EXPECT_LE(slot_bytes, cache.arena_bytes);
    const Metrics::StateBytes& states = metrics_.state_bytes;
    EXPECT_EQ(
        states.empty.Value() + states.loading.Value() + states.resident.Value(),
        static_cast<double>(slot_bytes));
    EXPECT_EQ(states.resident.Value(), static_cast<double>(resident_bytes));
  }

  std::mt19937_64 random_;
  Metrics metrics_;
  std::unique_ptr<Engine> engine_;
};

std::vector<std::vector<int32_t>> RightAnswers() {
  Metrics metrics;
  ModelOptions options;
  options.threads = 1;
  options.context = 128;
  Engine engine(*Model::Load(*PackedModel::Open(PackedForTest(kSource)),
                             options, metrics),
                {}, metrics);
  std::vector<std::vector<int32_t>> right;
  for (int32_t i = 0; i < 6; ++i) {
    Reader reader;
    std::vector<Submission> submissions;
    submissions.push_back(
        {Greedy(Simulation::Prompt(i), kTokens), reader.stream()});
    CHECK(engine.Submit(std::move(submissions)).ok());
    CHECK(reader.Wait().status.ok()) << reader.Wait().status;
    right.push_back(reader.ids());
  }
  return right;
}

TEST(EngineSimulation,
     WhateverTheDiskAndItsReadersDoTokensAreRightAndBooksAddUp) {
  const auto level = spdlog::get_level();
  spdlog::set_level(spdlog::level::err);  // not of each of the engines
  const std::vector<std::vector<int32_t>> right = RightAnswers();
  Outcome outcome;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Simulation(seed).Run(right, outcome);
    if (HasFailure()) break;
  }
  spdlog::set_level(level);
  EXPECT_GT(outcome.whole, 500);
  EXPECT_GT(outcome.failed, 100);
  EXPECT_GT(outcome.cancelled, 100);
}

}  // namespace
}  // namespace bullpen
