#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/experts/cache.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_blob_reader.h"
#include "tests/fakes/host_cache.h"

namespace bullpen {

// A cache of three layers of eight experts, over files in memory.
class CacheTest : public ::testing::Test {
 protected:
  CacheTest()
      : model_(
            MakeFakeModel({.layers = 3, .experts = 8, .blob_bytes = 8192}, 3)),
        reader_(model_.files),
        transfers_(reader_, {.threads = 2, .chunk_bytes = 4096}) {}

  void Create(std::vector<int32_t> slots,
              PolicyKind policy = PolicyKind::kCrf) {
    CreateOn(transfers_, std::move(slots), policy);
  }
  void CreateOn(TransferQueue& transfers, std::vector<int32_t> slots,
                PolicyKind policy = PolicyKind::kCrf) {
    const CacheConfig config{.slots = std::move(slots), .policy = policy};
    cache_ = std::make_unique<HostCache>(model_.catalog, config, transfers,
                                         metrics_);
  }
  ExpertCache::Acquisition Acquire(int32_t layer, std::vector<int32_t> experts,
                                   Phase phase = Phase::kDecode) {
    const std::vector<int32_t> counts(experts.size(), 1);
    return cache_->Acquire(layer, experts, counts, 1, phase);
  }
  // One step of a layer; the experts in the order in which they came. Checks
  // the bytes of each.
  std::vector<int32_t> Step(int32_t layer, std::vector<int32_t> experts,
                            Phase phase = Phase::kDecode) {
    std::vector<int32_t> given;
    ExpertCache::Acquisition step = Acquire(layer, std::move(experts), phase);
    for (auto group = step.Next(); !group.empty(); group = step.Next()) {
      for (const ReadyExpert& ready : group) {
        EXPECT_TRUE(ready.status.ok()) << ready.status;
        EXPECT_TRUE(Right(layer, ready));
        given.push_back(ready.expert);
      }
    }
    return given;
  }
  bool Right(int32_t layer, const ReadyExpert& ready) const {
    const auto expected = model_.Blob(layer, ready.expert);
    return std::ranges::equal(std::span(ready.blob, expected.size()), expected);
  }
  std::vector<int32_t> Resident(int32_t layer) const {
    return cache_->Snapshot().layers[layer].resident;
  }
  static std::vector<int32_t> Ids(std::span<const ReadyExpert> group) {
    std::vector<int32_t> ids;
    for (const ReadyExpert& ready : group) ids.push_back(ready.expert);
    return ids;
  }

  Metrics metrics_;
  FakeModel model_;
  FakeBlobReader reader_;
  TransferQueue transfers_;
  std::unique_ptr<HostCache> cache_;
};

}  // namespace bullpen
