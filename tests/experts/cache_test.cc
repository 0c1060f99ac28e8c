#include "engine/experts/cache.h"

#include <algorithm>
#include <numeric>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/experts/cache_fixture.h"

namespace bullpen {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

TEST_F(CacheTest, AMissLoadsAndTheNextLookupHits) {
  Create({4, 4, 4});
  EXPECT_THAT(Step(1, {5, 2}), UnorderedElementsAre(5, 2));
  EXPECT_THAT(Resident(1), ElementsAre(2, 5));
  EXPECT_THAT(Resident(0), IsEmpty());
  EXPECT_THAT(Step(1, {2, 5}), ElementsAre(2, 5));
  const CacheSnapshot snapshot = cache_->Snapshot();
  EXPECT_EQ(snapshot.layers[1].lookups, 4u);
  EXPECT_EQ(snapshot.layers[1].hits, 2u);
  EXPECT_EQ(snapshot.loads, 2u);
  EXPECT_EQ(snapshot.bytes_loaded, 2u * 16384u);
}

TEST_F(CacheTest, ResidentOnesComeFirstWhileTheOthersLoad) {
  Create({4, 4, 4});
  Step(0, {1, 2});
  reader_.CloseGate();
  ExpertCache::Acquisition step = Acquire(0, {6, 1, 2, 7});
  EXPECT_THAT(Ids(step.Next()), ElementsAre(1, 2));
  reader_.AwaitAtGate(2);  // both loads have started by themselves
  EXPECT_EQ(cache_->Snapshot().layers[0].loading.size(), 2u);
  reader_.OpenGate();
  std::vector<int32_t> rest;
  for (auto group = step.Next(); !group.empty(); group = step.Next()) {
    for (const int32_t expert : Ids(group)) rest.push_back(expert);
  }
  EXPECT_THAT(rest, UnorderedElementsAre(6, 7));
}

TEST_F(CacheTest, AStepTellsWhetherItLoadsAndWhetherItHasToWait) {
  Create({8, 8, 8});
  Step(0, {1, 2});
  reader_.CloseGate();
  ExpertCache::Acquisition step = Acquire(0, {1, 2, 6});
  EXPECT_TRUE(step.loads());
  EXPECT_FALSE(step.waits());  // two are resident
  EXPECT_EQ(step.Next().size(), 2u);
  EXPECT_TRUE(step.waits());
  reader_.OpenGate();
  EXPECT_THAT(Ids(step.Next()), ElementsAre(6));
  EXPECT_FALSE(step.loads());
  EXPECT_FALSE(step.waits());
}

TEST_F(CacheTest, AllThatHasArrivedComesInOneGroup) {
  Create({8, 8, 8});
  reader_.CloseGate();
  ExpertCache::Acquisition step = Acquire(0, {0, 1, 2, 3, 4, 5, 6, 7});
  reader_.OpenGate();
  size_t given = 0;
  int groups = 0;
  for (auto group = step.Next(); !group.empty(); group = step.Next()) {
    given += group.size();
    ++groups;
  }
  EXPECT_EQ(given, 8u);
  EXPECT_LE(groups, 8);
}

TEST_F(CacheTest, OneSlotServesEveryExpertOfTheStep) {
  Create({1, 1, 1});
  EXPECT_THAT(Step(2, {7, 0, 3, 5}), ElementsAre(7, 0, 3, 5));
  EXPECT_THAT(Step(2, {7, 5}), ElementsAre(5, 7));
}

TEST_F(CacheTest, MoreExpertsThanSlotsCountEachLookupOnce) {
  for (const Phase phase : {Phase::kDecode, Phase::kPrefill}) {
    Create({3, 3, 3});
    std::vector<int32_t> all(8);
    std::iota(all.begin(), all.end(), 0);
    for (int round = 0; round < 4; ++round) {
      EXPECT_THAT(Step(0, all, phase),
                  ::testing::UnorderedElementsAreArray(all));
    }
    const CacheSnapshot::Layer layer = cache_->Snapshot().layers[0];
    EXPECT_EQ(layer.lookups, 32u);
    EXPECT_EQ(layer.resident.size(), 3u);
    EXPECT_EQ(cache_->Snapshot().loads, layer.lookups - layer.hits);
  }
}

TEST_F(CacheTest, EvictsTheLeastFrequentNotTheLeastRecent) {
  Create({3, 3, 3});
  for (int i = 0; i < 5; ++i) Step(0, {0, 1});
  Step(0, {2});
  Step(0, {3});
  EXPECT_THAT(Resident(0), ElementsAre(0, 1, 3));
}

TEST_F(CacheTest, EachPolicyHasItsVictim) {
  const struct {
    PolicyKind policy;
    std::vector<int32_t> left;
  } cases[] = {{PolicyKind::kLru, {1, 2}},
               {PolicyKind::kLfu, {0, 2}},
               {PolicyKind::kStatic, {2, 3}}};
  for (const auto& [policy, left] : cases) {
    cache_.reset();
    Create({2, 1, 1}, policy);
    if (policy == PolicyKind::kStatic) {
      const float scores[] = {0.3f, 0.2f, 0.5f, 0.9f, 0, 0, 0, 0};
      cache_->SetScores(0, scores);
      Step(0, {3});
    }
    for (const int32_t expert : {0, 0, 0, 1, 2}) Step(0, {expert});
    EXPECT_EQ(Resident(0), left);
  }
}

TEST_F(CacheTest, ScoresFallByHalfInTheHalfLifeThatIsSet) {
  const CacheConfig config{.slots = {2, 2, 2}, .half_life_tokens = 4};
  cache_ =
      std::make_unique<HostCache>(model_.catalog, config, transfers_, metrics_);
  Step(1, {6});
  for (int i = 0; i < 4; ++i) Step(1, {7});
  EXPECT_NEAR(cache_->Snapshot().layers[1].scores[0], 0.5, 1e-6);
}

TEST_F(CacheTest, ASnapshotTellsSlotsStatesAndScores) {
  Create({4, 2, 8}, PolicyKind::kLfu);
  for (int i = 0; i < 3; ++i) Step(1, {6});
  reader_.CloseGate();
  const ExpertKey guess[] = {{.layer = 1, .expert = 2}};
  cache_->Prefetch(guess);
  const CacheSnapshot::Layer layer = cache_->Snapshot().layers[1];
  EXPECT_EQ(layer.slots, 2);
  EXPECT_EQ(layer.slot_bytes, 2 * 8192);
  EXPECT_THAT(layer.resident, ElementsAre(6));
  EXPECT_THAT(layer.scores, ElementsAre(3));
  EXPECT_THAT(layer.loading, ElementsAre(2));
  EXPECT_EQ(cache_->Snapshot().arena_bytes, cache_->arena_bytes());
  reader_.OpenGate();
}

TEST_F(CacheTest, ASnapshotTellsWhatTheAccountsSay) {
  Create({1, 1, 1});
  for (int32_t i = 0; i < 16; ++i) Step(2, {i % 8});
  const CacheSnapshot snapshot = cache_->Snapshot();
  const CacheAccounts& accounts = cache_->accounts();
  EXPECT_GT(snapshot.link_busy_seconds, 0);
  EXPECT_EQ(snapshot.link_busy_seconds, accounts.link_busy_seconds());
  EXPECT_EQ(snapshot.stall_seconds, accounts.stall_seconds());
  EXPECT_EQ(snapshot.transferred.demand, accounts.transferred().demand);
  EXPECT_EQ(snapshot.loads, 16u);
}

TEST_F(CacheTest, NeverEvictsWhatTheStepStillNeeds) {
  Create({3, 3, 3});
  for (int i = 0; i < 5; ++i) Step(0, {4, 5});
  Step(0, {1});
  // 1 has the least score, and is needed: 4 or 5 has to go.
  EXPECT_THAT(Step(0, {6, 1}), ElementsAre(1, 6));
  EXPECT_THAT(Resident(0), ::testing::IsSupersetOf({1, 6}));
  EXPECT_EQ(cache_->Snapshot().layers[0].hits, 4u * 2 + 1);
}

TEST_F(CacheTest, PrefillDoesNotFlushTheDecodeSet) {
  Create({8, 4, 4});
  for (int i = 0; i < 20; ++i) Step(1, {0, 1, 2, 3});
  Step(1, {0, 1, 2, 3, 4, 5, 6, 7}, Phase::kPrefill);
  int32_t kept = 0;
  for (const int32_t expert : Resident(1)) kept += expert < 4;
  EXPECT_GE(kept, 2);
}

TEST_F(CacheTest, AFailedLoadComesWithItsStatusAndIsTriedAgain) {
  Create({4, 4, 4});
  Step(0, {1});
  const ExpertLocation& place = model_.catalog.layers[0].experts[6];
  reader_.SetStatus(place.file, place.offset, absl::DataLossError("bad disk"));
  for (int round = 1; round <= 2; ++round) {
    ExpertCache::Acquisition step = Acquire(0, {1, 6, 3});
    std::vector<int32_t> good;
    int bad = 0;
    for (auto group = step.Next(); !group.empty(); group = step.Next()) {
      for (const ReadyExpert& ready : group) {
        if (ready.status.ok()) {
          EXPECT_TRUE(Right(0, ready));
          good.push_back(ready.expert);
          continue;
        }
        ++bad;
        EXPECT_EQ(ready.expert, 6);
        EXPECT_EQ(ready.blob, nullptr);
        EXPECT_EQ(std::string(ready.status.message()),
                  "expert 6 of layer 0 in memory-0: bad disk");
        EXPECT_TRUE(absl::IsDataLoss(ready.status));
      }
    }
    EXPECT_THAT(good, UnorderedElementsAre(1, 3));
    EXPECT_EQ(bad, 1);
    EXPECT_EQ(cache_->Snapshot().load_failures, static_cast<uint64_t>(round));
  }
  EXPECT_EQ(metrics_.expert_load_failures.Value(), 2);
  reader_.SetStatus(place.file, place.offset, absl::OkStatus());
  EXPECT_THAT(Step(0, {6}), ElementsAre(6));
}

TEST_F(CacheTest, AFlippedByteIsDataLossNotAWrongToken) {
  Create({1, 1, 1});
  const ExpertLocation& place = model_.catalog.layers[1].experts[2];
  reader_.FlipByte(place.file, place.offset + 5000);
  ExpertCache::Acquisition step = Acquire(1, {2, 3});
  const auto group = step.Next();
  ASSERT_EQ(group.size(), 1u);
  EXPECT_THAT(std::string(group[0].status.message()),
              HasSubstr("wrong checksum"));
  EXPECT_THAT(Ids(step.Next()), ElementsAre(3));
  EXPECT_TRUE(step.Next().empty());
}

TEST_F(CacheTest, VerifiedOnceMeansUntilItWasRightOnce) {
  const CacheConfig config{.slots = {1, 1, 1},
                           .verification = Verification::kOnce};
  cache_ =
      std::make_unique<HostCache>(model_.catalog, config, transfers_, metrics_);
  const ExpertLocation& place = model_.catalog.layers[1].experts[2];
  const auto load = [&] { return Acquire(1, {2}).Next()[0].status; };
  reader_.FlipByte(place.file, place.offset + 5000);
  for (int round = 0; round < 2; ++round) {
    EXPECT_THAT(std::string(load().message()), HasSubstr("wrong checksum"));
  }
  reader_.FlipByte(place.file, place.offset + 5000);  // as it was
  EXPECT_TRUE(load().ok());
  Step(1, {3});  // evicts it
  reader_.FlipByte(place.file, place.offset + 5000);
  EXPECT_TRUE(load().ok());
  // Another one is still to be compared.
  const ExpertLocation& other = model_.catalog.layers[1].experts[4];
  reader_.FlipByte(other.file, other.offset);
  EXPECT_TRUE(absl::IsDataLoss(Acquire(1, {4}).Next()[0].status));
}

TEST_F(CacheTest, MetricsAddUpByPhase) {
  Create({4, 4, 4});
  EXPECT_EQ(metrics_.expert_slots.Value(), 12);
  EXPECT_EQ(metrics_.expert_slot_bytes.Value(), 4 * (1 + 2 + 3) * 8192);
  EXPECT_EQ(cache_->arena_bytes(), 4 * (1 + 2 + 3) * 8192);
  Step(0, {0, 1, 2}, Phase::kPrefill);
  Step(0, {0, 1}, Phase::kDecode);
  Step(0, {0, 7}, Phase::kDecode);
  EXPECT_EQ(metrics_.lookups_prefill.missed.Value(), 3);
  EXPECT_EQ(metrics_.lookups_prefill.resident.Value(), 0);
  EXPECT_EQ(metrics_.lookups_decode.resident.Value(), 3);
  EXPECT_EQ(metrics_.lookups_decode.missed.Value(), 1);
  EXPECT_EQ(metrics_.expert_slots_resident.Value(), 4);
  EXPECT_EQ(metrics_.state_bytes.resident.Value(), 4 * 8192);
  EXPECT_EQ(metrics_.state_bytes.empty.Value(), 4 * (2 + 3) * 8192);
  EXPECT_EQ(metrics_.TransferBytesBetween("disk", "ram").demand.Value(),
            4 * 8192);
  const double stalled = metrics_.stall_seconds_decode.Value();
  Step(0, {0, 1, 2, 7});
  EXPECT_EQ(metrics_.stall_seconds_decode.Value(), stalled);
}

TEST_F(CacheTest, AStepGivenUpEarlyLeavesNoLeaseAndNoLoad) {
  Create({2, 2, 2});
  Step(0, {1});
  reader_.CloseGate();
  std::stop_source stop;
  stop.request_stop();
  {
    ExpertCache::Acquisition step = Acquire(0, {1, 2, 3, 4});
    EXPECT_THAT(Ids(step.Next(stop.get_token())), ElementsAre(1));
    EXPECT_TRUE(step.Next(stop.get_token()).empty());
    EXPECT_TRUE(step.loads());
    reader_.AwaitAtGate(2);  // all of 2; 3 has to wait
  }
  EXPECT_EQ(transfers_.under_way(), 1);
  reader_.OpenGate();
  EXPECT_THAT(Step(0, {5, 6, 7}), UnorderedElementsAre(5, 6, 7));
}

TEST_F(CacheTest, DestructionWaitsForReadsUnderWayAndDropsTheRest) {
  Create({2, 2, 2});
  reader_.CloseGate();
  cache_->Prefetch(std::vector<ExpertKey>{{1, 1}, {1, 2}, {2, 1}, {2, 2}});
  reader_.AwaitAtGate(2);
  const std::jthread gate([this] {
    while (metrics_.expert_slots_loading.Value() > 1) std::this_thread::yield();
    reader_.LetPass(2);
  });
  cache_.reset();
  EXPECT_EQ(transfers_.under_way(), 0);
}

TEST_F(CacheTest, DestructionWithALeaseOutIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        Create({2, 2, 2});
        ExpertCache::Acquisition step = Acquire(1, {1});
        cache_.reset();
      },
      "a lease of layer 1 is out");
}

TEST_F(CacheTest, AStallIsThatOfItsPhase) {
  Create({1, 1, 1});
  // Now and then a load may end before anybody waits for it.
  for (int32_t i = 0; i < 1000 && metrics_.stall_seconds_prefill.Value() == 0;
       ++i) {
    Step(2, {i % 8}, Phase::kPrefill);
  }
  EXPECT_GT(metrics_.stall_seconds_prefill.Value(), 0);
  EXPECT_EQ(metrics_.stall_seconds_decode.Value(), 0);
}

// The slot of one layer serves another, bytes, metrics and snapshot included.
TEST_F(CacheTest, ASharedSlotGoesToTheLayerThatNeedsIt) {
  FakeModel model = MakeFakeModel({.layers = 2, .same_size = true}, 4);
  FakeBlobReader reader(model.files);
  TransferQueue transfers(reader, {.threads = 2, .chunk_bytes = 4096});
  const CacheConfig config{
      .slots = {3, 3}, .floors = {2, 2}, .policy = PolicyKind::kLru};
  HostCache cache(model.catalog, config, transfers, metrics_);
  const auto step = [&](int32_t layer, std::vector<int32_t> experts) {
    const std::vector<int32_t> counts(experts.size(), 1);
    auto given = cache.Acquire(layer, experts, counts, 1, Phase::kDecode);
    for (auto group = given.Next(); !group.empty(); group = given.Next()) {
      for (const ReadyExpert& ready : group) {
        const auto expected = model.Blob(layer, ready.expert);
        EXPECT_TRUE(std::ranges::equal(std::span(ready.blob, expected.size()),
                                       expected));
      }
    }
  };
  step(1, {5, 6, 7});
  for (int round = 0; round < 3; ++round) step(1, {6, 7});
  for (int round = 0; round < 3; ++round) step(0, {0, 1, 2});
  step(0, {3});
  step(0, {4});
  const CacheSnapshot snapshot = cache.Snapshot();
  EXPECT_EQ(snapshot.layers[0].slots, 4);
  EXPECT_EQ(snapshot.layers[1].slots, 2);
  EXPECT_THAT(snapshot.layers[0].resident, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(snapshot.layers[1].resident, ElementsAre(6, 7));
  EXPECT_EQ(metrics_.layer_slots.Add({{"layer", "0"}}).Value(), 4);
  EXPECT_EQ(metrics_.layer_slots.Add({{"layer", "1"}}).Value(), 2);
  EXPECT_EQ(metrics_.expert_slots.Value(), 6);
  EXPECT_EQ(metrics_.expert_slots_resident.Value(), 6);
  EXPECT_EQ(metrics_.evictions_demand.Value(), 2);
  step(1, {6, 7});
  EXPECT_EQ(cache.Snapshot().layers[1].hits, 8u);
}

TEST_F(CacheTest, AStepOfNoExpertsGivesNone) {
  Create({2, 2, 2});
  EXPECT_THAT(Step(0, {}), IsEmpty());
}

// As experts in host memory that a device copies from.
class MemoryReader : public BlobReader {
 public:
  explicit MemoryReader(std::span<const std::byte> memory) : memory_(memory) {}
  absl::Status Read(int32_t, int64_t offset,
                    std::span<std::byte> out) override {
    std::ranges::copy(memory_.subspan(offset, out.size()), out.begin());
    return absl::OkStatus();
  }

 private:
  std::span<const std::byte> memory_;
};

TEST_F(CacheTest, TheSameObjectsCarryFromAnyPlaceToAnyOther) {
  // All experts are in slots of host memory; a second cache is filled from it.
  Create({8, 8, 8});
  ExpertCatalog host = model_.catalog;
  const std::byte* first = nullptr;
  int64_t bytes = cache_->arena_bytes();
  for (int32_t layer = 0; layer < 3; ++layer) {
    auto step = Acquire(layer, {0, 1, 2, 3, 4, 5, 6, 7});
    for (auto group = step.Next(); !group.empty(); group = step.Next()) {
      for (const ReadyExpert& ready : group) {
        first = first == nullptr ? ready.blob : std::min(first, ready.blob);
        host.layers[layer].experts[ready.expert].offset =
            reinterpret_cast<int64_t>(ready.blob);
      }
    }
  }
  for (ExpertCatalog::Layer& layer : host.layers) {
    for (ExpertLocation& place : layer.experts) {
      place.offset -= reinterpret_cast<int64_t>(first);
    }
  }
  MemoryReader reader({first, static_cast<size_t>(bytes)});
  TransferQueue link(reader, {.link = {.from = "ram", .to = "vram"}});
  Metrics metrics;
  HostCache device(host, {.slots = {2, 2, 2}}, link, metrics);
  for (const int32_t layer : {0, 1, 2, 1}) {
    auto step =
        device.Acquire(layer, std::vector<int32_t>{5, 2, 7},
                       std::vector<int32_t>{1, 1, 1}, 1, Phase::kDecode);
    for (auto group = step.Next(); !group.empty(); group = step.Next()) {
      for (const ReadyExpert& ready : group) EXPECT_TRUE(Right(layer, ready));
    }
  }
  const double moved = device.accounts().transferred().demand;
  EXPECT_GE(moved, 3 * 8192 * (1 + 2 + 3));
  EXPECT_EQ(metrics.TransferBytesBetween("ram", "vram").demand.Value(), moved);
  EXPECT_EQ(metrics.TransferBytesBetween("disk", "ram").demand.Value(), 0);
}

}  // namespace
}  // namespace bullpen
