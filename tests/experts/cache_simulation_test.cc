// Drives cache, slots and transfer threads with a reader that delays, fails
// and corrupts by seed, and holds the invariants of docs/ARCHITECTURE.md.

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <stop_token>
#include <vector>

#include "engine/experts/cache.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_blob_reader.h"
#include "tests/fakes/host_cache.h"

namespace bullpen {
namespace {

constexpr int kSeeds = 1000;
constexpr int kSteps = 60;

class Simulation {
 public:
  explicit Simulation(uint64_t seed)
      : random_(seed),
        shape_{.layers = Draw(1, 4),
               .experts = Draw(1, 16),
               .same_size = seed % 4 == 1},
        model_(MakeFakeModel(shape_, seed)),
        reader_(model_.files),
        transfers_(reader_, {.threads = Draw(1, 2),
                             .capacity = Draw(0, 3) == 0 ? Draw(1, 4) : 64,
                             .chunk_bytes = 4096}) {
    for (int32_t l = 0; l < shape_.layers; ++l) {
      slots_.push_back(Draw(1, shape_.experts));
    }
    floors_ = slots_;
    if (seed % 2 == 1) {
      for (int32_t& floor : floors_) floor = Draw(1, floor);
    }
    lookups_.resize(slots_.size());
    const double trouble = Draw(0, 2) * 0.05;
    reader_.SetFaults({.fail = trouble,
                       .shorten = trouble / 2,
                       .corrupt = trouble,
                       .yields = Draw(0, 4)},
                      seed);
    const CacheConfig config{.slots = slots_, .floors = floors_};
    cache_ = std::make_unique<HostCache>(model_.catalog, config, transfers_,
                                         metrics_);
  }

  bool moved() const { return moved_; }

  void Run() {
    for (int i = 0; i < kSteps && !testing::Test::HasFailure(); ++i) {
      if (Draw(0, 2) == 0) cache_->Prefetch(DrawKeys());
      Step(Draw(0, shape_.layers - 1));
      CheckSnapshot();
    }
    // What is under way ends, and the levels come to rest.
    while (transfers_.under_way() > 0) cache_->Prefetch({});
    CheckSnapshot();
    size_t resident = 0;
    for (const CacheSnapshot::Layer& layer : cache_->Snapshot().layers) {
      resident += layer.resident.size();
    }
    EXPECT_EQ(metrics_.expert_slots_resident.Value(),
              static_cast<double>(resident));
    EXPECT_EQ(metrics_.expert_slots_loading.Value(), 0);
    EXPECT_EQ(metrics_.state_bytes.loading.Value(), 0);
    EXPECT_EQ(cache_->accounts().guess_bytes_under_way(), 0);
  }

 private:
  int32_t Draw(int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random_);
  }
  std::vector<ExpertKey> DrawKeys() {
    std::vector<ExpertKey> keys(static_cast<size_t>(Draw(0, 6)));
    for (ExpertKey& key : keys) {
      key = {Draw(0, shape_.layers - 1), Draw(0, shape_.experts - 1)};
    }
    return keys;
  }

  void Step(int32_t layer) {
    std::vector<int32_t> experts(static_cast<size_t>(shape_.experts));
    std::iota(experts.begin(), experts.end(), 0);
    std::shuffle(experts.begin(), experts.end(), random_);
    experts.resize(static_cast<size_t>(Draw(0, shape_.experts)));
    std::vector<int32_t> counts;
    for (size_t i = 0; i < experts.size(); ++i) counts.push_back(Draw(1, 9));
    const Phase phase = Draw(0, 3) == 0 ? Phase::kPrefill : Phase::kDecode;
    const std::vector<int32_t> before =
        cache_->Snapshot().layers[layer].resident;

    ExpertCache::Acquisition step =
        cache_->Acquire(layer, experts, counts, Draw(9, 20), phase);
    lookups_[layer] += experts.size();
    phase_lookups_[phase] += static_cast<double>(experts.size());
    std::multiset<int32_t> given;
    bool first = true;
    std::stop_source stop;
    while (Draw(0, 40) > 0) {  // now and then a step is given up, or stopped
      if (Draw(0, 40) == 0) stop.request_stop();
      const std::span<const ReadyExpert> group = step.Next(stop.get_token());
      if (group.empty() && step.loads()) {
        EXPECT_TRUE(stop.stop_requested());
        break;
      }
      if (group.empty()) {
        EXPECT_TRUE(std::ranges::is_permutation(
            std::vector(given.begin(), given.end()), experts));
        break;
      }
      if (Draw(0, 4) == 0) cache_->Prefetch(DrawKeys());
      CheckGroup(layer, group);
      for (const ReadyExpert& ready : group) given.insert(ready.expert);
      for (const int32_t expert : before) {
        if (first && std::ranges::count(experts, expert) > 0) {
          EXPECT_TRUE(given.contains(expert)) << "resident, not given first";
        }
      }
      first = false;
    }
  }

  void CheckGroup(int32_t layer, std::span<const ReadyExpert> group) {
    std::set<const std::byte*> blobs;
    for (const ReadyExpert& ready : group) {
      EXPECT_EQ(ready.blob == nullptr, !ready.status.ok());
      if (!ready.status.ok()) {
        EXPECT_TRUE(absl::IsDataLoss(ready.status)) << ready.status;
        ++failures_seen_;
        continue;
      }
      EXPECT_TRUE(blobs.insert(ready.blob).second) << "two in one slot";
      const auto expected = model_.Blob(layer, ready.expert);
      EXPECT_TRUE(
          std::ranges::equal(std::span(ready.blob, expected.size()), expected))
          << "wrong bytes of expert " << ready.expert << ", layer " << layer;
    }
    EXPECT_LE(blobs.size(),
              static_cast<size_t>(cache_->Snapshot().layers[layer].slots));
  }

  void CheckSnapshot() {
    const CacheSnapshot snapshot = cache_->Snapshot();
    uint64_t lookups = 0;
    uint64_t hits = 0;
    int32_t slots = 0;
    int64_t slot_bytes = 0;
    std::map<int64_t, int32_t> moved_in;  // by blob size
    for (size_t l = 0; l < snapshot.layers.size(); ++l) {
      const CacheSnapshot::Layer& layer = snapshot.layers[l];
      EXPECT_GE(layer.slots, floors_[l]);
      EXPECT_LE(layer.slots, shape_.experts);
      moved_ = moved_ || layer.slots != slots_[l];
      slots += layer.slots;
      slot_bytes += layer.slots * layer.slot_bytes;
      moved_in[layer.slot_bytes] += layer.slots - slots_[l];
      EXPECT_EQ(
          metrics_.layer_slots.Add({{"layer", std::to_string(l)}}).Value(),
          layer.slots);
      EXPECT_LE(layer.resident.size() + layer.loading.size(),
                static_cast<size_t>(layer.slots));
      EXPECT_TRUE(std::ranges::is_sorted(layer.resident));
      EXPECT_EQ(layer.lookups, lookups_[l]);
      EXPECT_LE(layer.hits, layer.lookups);
      lookups += layer.lookups;
      hits += layer.hits;
    }
    // The sum of the parts is the whole, for slots, lookups and bytes.
    EXPECT_EQ(slots, std::accumulate(slots_.begin(), slots_.end(), 0));
    EXPECT_EQ(metrics_.expert_slots.Value(), slots);
    const Metrics::StateBytes& states = metrics_.state_bytes;
    EXPECT_EQ(
        states.empty.Value() + states.loading.Value() + states.resident.Value(),
        static_cast<double>(slot_bytes));
    EXPECT_GE(states.empty.Value(), 0);
    EXPECT_GE(states.loading.Value(), 0);
    for (const auto& [size, count] : moved_in) EXPECT_EQ(count, 0) << size;
    const double decode = Sum(metrics_.lookups_decode);
    const double prefill = Sum(metrics_.lookups_prefill);
    EXPECT_EQ(decode, phase_lookups_[Phase::kDecode]);
    EXPECT_EQ(prefill, phase_lookups_[Phase::kPrefill]);
    EXPECT_EQ(decode + prefill, static_cast<double>(lookups));
    EXPECT_EQ(snapshot.decode.hits() + snapshot.prefill.hits(), hits);
    EXPECT_EQ(static_cast<double>(snapshot.decode.lookups()), decode);
    EXPECT_EQ(static_cast<double>(snapshot.prefill.lookups()), prefill);
    const TransferredBytes& bytes = snapshot.transferred;
    const int64_t counted =
        bytes.demand + bytes.prefetch_used + bytes.prefetch_wasted;
    EXPECT_LE(counted, static_cast<int64_t>(snapshot.bytes_loaded));
    EXPECT_GE(counted, static_cast<int64_t>(snapshot.bytes_loaded) -
                           cache_->arena_bytes());
    EXPECT_EQ(
        metrics_.TransferBytesBetween("disk", "ram").demand.Value() +
            metrics_.TransferBytesBetween("disk", "ram").prefetch_used.Value() +
            metrics_.TransferBytesBetween("disk", "ram")
                .prefetch_wasted.Value(),
        static_cast<double>(counted));
    EXPECT_GE(cache_->accounts().guess_bytes_under_way(), 0);
    EXPECT_EQ(metrics_.expert_load_failures.Value(),
              static_cast<double>(snapshot.load_failures));
    EXPECT_GE(snapshot.load_failures, failures_seen_);
    EXPECT_LE(transfers_.under_way(), transfers_.capacity());
  }

  static double Sum(const Metrics::Lookups& lookups) {
    return lookups.resident.Value() + lookups.prefetched.Value() +
           lookups.prefetched_late.Value() + lookups.missed.Value();
  }

  std::mt19937_64 random_;
  FakeModelShape shape_;
  FakeModel model_;
  FakeBlobReader reader_;
  TransferQueue transfers_;
  Metrics metrics_;
  std::vector<int32_t> slots_;   // at first
  std::vector<int32_t> floors_;  // of odd seeds; as slots_ where none moves
  bool moved_ = false;
  std::vector<uint64_t> lookups_;
  std::map<Phase, double> phase_lookups_;
  uint64_t failures_seen_ = 0;
  std::unique_ptr<HostCache> cache_;
};

TEST(CacheSimulation, HoldsItsInvariantsUnderDelaysFailuresAndCorruption) {
  int moved = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Simulation simulation(seed);
    simulation.Run();
    moved += simulation.moved();
    if (HasFailure()) break;
  }
  EXPECT_GT(moved, kSeeds / 10) << "runs in which layers gained or lost slots";
}

}  // namespace
}  // namespace bullpen
