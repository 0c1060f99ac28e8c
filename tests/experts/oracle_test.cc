// The rules that look ahead, and what a live cache publishes of them.

#include <algorithm>
#include <bit>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "engine/experts/cache.h"
#include "engine/experts/oracle_cache.h"
#include "engine/experts/oracle_window.h"
#include "engine/experts/replay.h"
#include "engine/experts/trace_file.h"
#include "engine/experts/trace_steps.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_blob_reader.h"
#include "tests/fakes/host_cache.h"

namespace bullpen {
namespace {

using Steps = std::vector<std::vector<int32_t>>;

std::vector<std::span<const int32_t>> Views(const Steps& steps) {
  return {steps.begin(), steps.end()};
}

Steps DrawSteps(std::mt19937& random, int32_t count, int32_t experts,
                int32_t k) {
  Steps steps(static_cast<size_t>(count));
  for (std::vector<int32_t>& step : steps) {
    std::set<int32_t> chosen;
    while (std::ssize(chosen) < k) {
      // Low ones are the more popular.
      const uint32_t most = random() % static_cast<uint32_t>(experts) + 1;
      chosen.insert(static_cast<int32_t>(random() % most));
    }
    step.assign(chosen.begin(), chosen.end());
  }
  return steps;
}

// The most hits that any choice of victims gives, by trying all of them.
int64_t BestByForce(const Steps& steps, size_t now, std::set<int32_t> held,
                    size_t slots) {
  if (now == steps.size()) return 0;
  int64_t hits = 0;
  std::vector<std::set<int32_t>> after;
  for (const int32_t expert : steps[now]) hits += held.contains(expert);
  after.push_back(held);
  for (const int32_t expert : steps[now]) {
    std::vector<std::set<int32_t>> next;
    for (const std::set<int32_t>& one : after) {
      if (one.contains(expert)) {
        next.push_back(one);
        continue;
      }
      std::set<int32_t> with = one;
      with.insert(expert);
      if (one.size() < slots) next.push_back(with);
      if (one.size() < slots) continue;
      for (const int32_t victim : one) {
        if (std::ranges::count(steps[now], victim) > 0) continue;
        std::set<int32_t> without = with;
        without.erase(victim);
        next.push_back(without);
      }
    }
    after = std::move(next);
  }
  int64_t best = 0;
  for (const std::set<int32_t>& one : after) {
    best = std::max(best, BestByForce(steps, now + 1, one, slots));
  }
  return hits + best;
}

TEST(OracleCache, BeladyIsTheBestOfAllChoicesOfVictims) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const int32_t slots = 2 + static_cast<int32_t>(random() % 3);
    const Steps steps = DrawSteps(random, 7, 6, 2);
    const std::vector<int32_t> held = {5, 1};
    const auto views = Views(steps);
    OracleCache cache(6);
    EXPECT_EQ(cache.Belady({.steps = views, .slots = slots, .held = held}).hits,
              BestByForce(steps, 0, {held.begin(), held.end()},
                          static_cast<size_t>(slots)));
  }
}

// The same where a step's experts pass through `slots` full slots: any of them
// and of those that were there may stay. Experts are bits.
int64_t BestOfPassing(const Steps& steps, size_t now, uint32_t held,
                      int slots) {
  if (now == steps.size()) return 0;
  uint32_t needed = 0;
  for (const int32_t expert : steps[now]) needed |= 1u << expert;
  const uint32_t passed = held | needed;
  int64_t best = 0;
  for (uint32_t stay = passed; stay > 0; stay = (stay - 1) & passed) {
    if (std::popcount(stay) != slots) continue;
    best = std::max(best, BestOfPassing(steps, now + 1, stay, slots));
  }
  return std::popcount(held & needed) + best;
}

TEST(OracleCache, BeladyIsTheBestWhereStepsNeedMoreThanTheSlots) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const Steps steps = DrawSteps(random, 5, 6, 3);
    const std::vector<int32_t> held = {5, 1};
    const auto views = Views(steps);
    OracleCache cache(6);
    const OracleCache::Stream stream{.steps = views, .slots = 2, .held = held};
    const int64_t most = cache.Belady(stream).hits;
    EXPECT_EQ(most, BestOfPassing(steps, 0, 1u << 5 | 1u << 1, 2));
    EXPECT_LE(cache.Segment(stream, 1).hits, most);
    EXPECT_LE(cache.Segment(stream, 0).hits, most);
  }
}

// Of {0 1 2} through two slots the last two stay.
TEST(OracleCache, OfAStepThatIsTooLargeTheLastUsedStay) {
  const Steps steps = {{0, 1, 2}, {1, 2}, {0}};
  const auto views = Views(steps);
  OracleCache cache(3);
  EXPECT_EQ(cache.Segment({.steps = views, .slots = 2}, 0).hits, 2);
}

TEST(OracleCache, NoSegmentSeesMoreThanTheWholeFuture) {
  for (uint32_t seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const Steps steps = DrawSteps(random, 100, 32, 4);
    const auto views = Views(steps);
    OracleCache cache(64);  // of a larger layer too
    for (const int32_t slots : {1, 3, 4, 8, 31, 32}) {
      const OracleCache::Stream stream{.steps = views, .slots = slots};
      const HitCounts belady = cache.Belady(stream);
      EXPECT_EQ(belady.lookups, 400);
      for (const int32_t segment : {0, 1, 16, 200}) {
        EXPECT_LE(cache.Segment(stream, segment).hits, belady.hits);
      }
    }
  }
}

TEST(OracleCache, WithoutASegmentTheLeastRecentlyUsedGoes) {
  const Steps steps = {{0}, {1}, {0}, {2}, {0}, {1}};
  const auto views = Views(steps);
  OracleCache cache(3);
  EXPECT_EQ(cache.Segment({.steps = views, .slots = 2}, 0).hits, 2);
  // Of what it begins with, the first is the least recent.
  const std::vector<int32_t> held = {1, 2};
  EXPECT_EQ(cache.Segment({.steps = views, .slots = 2, .held = held}, 0).hits,
            2);
  const std::vector<int32_t> other = {2, 1};
  EXPECT_EQ(cache.Segment({.steps = views, .slots = 2, .held = other}, 0).hits,
            3);
}

TEST(OracleCache, AgreesWithTheReplayOfARecordedTrace) {
  const auto trace =
      ReadTrace("tests/golden/traces/qwen3-30b-a3b.12-layers.csv");
  ASSERT_TRUE(trace.ok()) << trace.status();
  const TraceSteps trace_steps(*trace, /*with_prefill=*/false,
                               /*with_decode=*/true);
  std::vector<Steps> layers(static_cast<size_t>(trace->layers()));
  for (const TraceSteps::Run& run : trace_steps.all_runs()) {
    const auto chosen = trace_steps.chosen(run, 0);
    layers[run.layer].emplace_back(chosen.begin(), chosen.end());
  }
  for (const int32_t slots : {12, 24}) {
    int64_t belady = 0;
    for (const Steps& steps : layers) {
      const auto views = Views(steps);
      OracleCache cache(trace->experts());
      belady += cache.Belady({.steps = views, .slots = slots}).hits;
    }
    const ReplayReport replay =
        Replay(*trace, {.policy = {.kind = PolicyKind::kBelady},
                        .slots_per_layer = slots,
                        .phase = Phase::kDecode});
    EXPECT_EQ(belady, replay.hits()) << slots;
  }
}

TEST(OracleWindow, PublishesWhatEachRuleHitsInTheWindow) {
  Metrics metrics;
  const FakeModel model = MakeFakeModel({.layers = 1, .experts = 8}, 1);
  OracleWindow window(model.catalog, 400, metrics);
  const LayerSlots slots(8, 7, {});
  std::mt19937 random(29);
  const Steps steps = DrawSteps(random, 200, 8, 2);
  for (const std::vector<int32_t>& step : steps) {
    EXPECT_EQ(window.hits().lookups, 0);
    window.BeginStep(0, slots);
    window.Record({.layer = 0, .experts = step, .tokens = 2, .hits = 1});
    window.Settle(0, 7);
  }
  OracleCache oracle(8);
  const std::vector<std::span<const int32_t>> views = Views(steps);
  const OracleCache::Stream stream{.steps = views, .slots = 7};
  const int64_t lru = oracle.Segment(stream, 0).hits;
  const int64_t segment = oracle.Segment(stream, 16).hits;
  const int64_t belady = oracle.Belady(stream).hits;
  EXPECT_LT(lru, segment);
  EXPECT_LT(segment, belady);
  EXPECT_EQ(window.hits().lookups, 400);
  EXPECT_EQ(window.hits().live, 200);
  EXPECT_EQ(window.hits().lru, lru);
  EXPECT_EQ(window.hits().segment, segment);
  EXPECT_EQ(window.hits().belady, belady);
  const auto published = [&](const char* rule) {
    return metrics.oracle_hits.Add({{"rule", rule}}).Value() * 400;
  };
  EXPECT_DOUBLE_EQ(published("live"), 200);
  EXPECT_DOUBLE_EQ(published("lru"), static_cast<double>(lru));
  EXPECT_DOUBLE_EQ(published("segment"), static_cast<double>(segment));
  EXPECT_DOUBLE_EQ(published("belady"), static_cast<double>(belady));
  EXPECT_DOUBLE_EQ(metrics.segment_hits.Add({{"layer", "0"}}).Value() * 400,
                   static_cast<double>(segment));
}

// A live cache of three layers whose experts are asked for at random.
class OracleWindowTest : public ::testing::Test {
 protected:
  static constexpr int32_t kLayers = 3;
  static constexpr int32_t kExperts = 16;

  OracleWindowTest()
      : model_(MakeFakeModel({.layers = kLayers, .experts = kExperts}, 3)),
        reader_(model_.files),
        transfers_(reader_, {.threads = 1}) {}

  void Create(PolicyKind policy, int32_t window) {
    const CacheConfig config{
        .slots = {4, 6, kExperts}, .policy = policy, .oracle_window = window};
    cache_ = std::make_unique<HostCache>(model_.catalog, config, transfers_,
                                         metrics_);
  }
  // One step of all layers; returns its hits.
  void Step(Phase phase = Phase::kDecode) {
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      const Steps drawn = DrawSteps(random_, 1, kExperts, 3);
      const std::vector<int32_t> counts(3, 1);
      auto step = cache_->Acquire(layer, drawn[0], counts, 1, phase);
      while (!step.Next().empty()) {
      }
    }
  }
  double Ratio(const char* rule) {
    return metrics_.oracle_hits.Add({{"rule", rule}}).Value();
  }

  Metrics metrics_;
  FakeModel model_;
  FakeBlobReader reader_;
  TransferQueue transfers_;
  std::unique_ptr<HostCache> cache_;
  std::mt19937 random_{11};
};

TEST_F(OracleWindowTest, OfALiveLruCacheLruHitsExactlyWhatItHit) {
  Create(PolicyKind::kLru, 50);
  for (int i = 0; i < 49; ++i) Step();
  EXPECT_EQ(Ratio("belady"), 0) << "before the first window is complete";
  for (int i = 0; i < 400; ++i) {
    Step();
    EXPECT_DOUBLE_EQ(Ratio("live"), Ratio("lru"));
  }
  EXPECT_GT(Ratio("live"), 0.3);
  EXPECT_LT(Ratio("live"), Ratio("segment"));
  EXPECT_LE(Ratio("segment"), Ratio("belady"));
  EXPECT_LT(Ratio("belady"), 1);
}

TEST_F(OracleWindowTest, LiveHitsAreThoseOfTheAccounts) {
  Create(PolicyKind::kCrf, 64);
  for (int i = 0; i < 64; ++i) Step();
  EXPECT_GT(Ratio("live"), 0);
  const LookupCounts before = cache_->accounts().decode();
  for (int i = 64; i < 64 * 4; ++i) Step();
  const LookupCounts after = cache_->accounts().decode();
  const double mean = static_cast<double>(after.hits() - before.hits()) /
                      static_cast<double>(after.lookups() - before.lookups());
  EXPECT_NEAR(Ratio("live"), mean, 0.1);
  EXPECT_LE(Ratio("live"), Ratio("belady"));
}

TEST_F(OracleWindowTest, SegmentFiguresOfEachLayerArePublished) {
  Create(PolicyKind::kCrf, 64);
  for (int i = 0; i < 200; ++i) Step();
  const auto of = [](prometheus::Family<prometheus::Gauge>& family, int layer) {
    return family.Add({{"layer", std::to_string(layer)}}).Value();
  };
  for (int layer = 0; layer < kLayers; ++layer) {
    EXPECT_GT(of(metrics_.segment_routing, layer), 0.2) << layer;
    EXPECT_LT(of(metrics_.segment_routing, layer), 1) << layer;
  }
  EXPECT_LT(of(metrics_.segment_hits, 0), of(metrics_.segment_hits, 1));
  EXPECT_EQ(of(metrics_.segment_hits, 2), 1) << "all experts have a slot";
}

TEST_F(OracleWindowTest, WhereSlotsMoveOtherRulesHaveTheLayersFairShare) {
  const FakeModel model = MakeFakeModel({.layers = 2, .same_size = true}, 4);
  FakeBlobReader reader(model.files);
  TransferQueue transfers(reader, {});
  const CacheConfig config{.slots = {3, 3},
                           .floors = {2, 2},
                           .policy = PolicyKind::kLru,
                           .oracle_window = 8};
  HostCache cache(model.catalog, config, transfers, metrics_);
  // Four in turn: all hit in the four slots that the layer has, none in three.
  for (int32_t i = 0; i < 40; ++i) {
    const std::vector<int32_t> experts = {i % 4};
    const std::vector<int32_t> counts = {1};
    auto step = cache.Acquire(0, experts, counts, 1, Phase::kDecode);
    while (!step.Next().empty()) {
    }
  }
  const CacheSnapshot snapshot = cache.Snapshot();
  EXPECT_EQ(snapshot.layers[0].slots, 4);
  EXPECT_EQ(snapshot.recent.lookups, 8);
  EXPECT_EQ(snapshot.recent.live, 8);
  EXPECT_EQ(snapshot.recent.lru, 0);
}

TEST_F(OracleWindowTest, PromptsAreNoPartOfIt) {
  Create(PolicyKind::kLru, 10);
  for (int i = 0; i < 100; ++i) Step(Phase::kPrefill);
  EXPECT_EQ(Ratio("belady"), 0);
}

TEST_F(OracleWindowTest, AWindowOfNoTokensIsNoWindow) {
  Create(PolicyKind::kLru, 0);
  for (int i = 0; i < 300; ++i) Step();
  EXPECT_TRUE(metrics_.oracle_hits.Collect().empty() ||
              metrics_.oracle_hits.Collect()[0].metric.empty());
}

}  // namespace
}  // namespace bullpen
