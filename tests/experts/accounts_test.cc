#include "engine/experts/accounts.h"

#include <string>

#include "gtest/gtest.h"

namespace bullpen {
namespace {

constexpr int64_t kBlob = 4096;
constexpr ExpertKey kFirst = {.layer = 0, .expert = 0};
constexpr ExpertKey kOther = {.layer = 1, .expert = 2};

class CacheAccountsTest : public ::testing::Test {
 protected:
  CacheAccountsTest()
      : catalog_{.files = {}, .layers = {2, {kBlob, {4, ExpertLocation{}}}}},
        accounts_(catalog_, Link{}, metrics_) {}

  void LookUp(ExpertKey key, SlotState found, Phase phase = Phase::kDecode) {
    accounts_.LookUp(key, found);
    accounts_.EndLookups(key.layer, phase);
  }
  void Load(ExpertKey key, bool guess) {
    accounts_.LoadStarted(key, guess);
    accounts_.LoadEnded(key, true, 0.5);
  }
  // Nobody wants the load any more; this much of it had arrived.
  void Cancel(ExpertKey key, int64_t bytes) {
    accounts_.GivenUp(key);
    accounts_.LoadCancelled(key, bytes);
  }
  void ExpectBytes(int64_t demand, int64_t used, int64_t wasted) {
    EXPECT_EQ(accounts_.transferred().demand, demand);
    EXPECT_EQ(accounts_.transferred().prefetch_used, used);
    EXPECT_EQ(accounts_.transferred().prefetch_wasted, wasted);
    const Metrics::TransferBytes bytes =
        metrics_.TransferBytesBetween("disk", "ram");
    EXPECT_EQ(bytes.demand.Value(), static_cast<double>(demand));
    EXPECT_EQ(bytes.prefetch_used.Value(), static_cast<double>(used));
    EXPECT_EQ(bytes.prefetch_wasted.Value(), static_cast<double>(wasted));
  }

  ExpertCatalog catalog_;
  Metrics metrics_;
  CacheAccounts accounts_;
};

TEST_F(CacheAccountsTest, EachLookupIsInOnePartAndInItsLayer) {
  for (const Phase phase : {Phase::kDecode, Phase::kPrefill}) {
    // 1 prefetched, 2 late, 3 missed, 4 resident.
    Load(kOther, true);
    LookUp(kOther, SlotState::kResident, phase);
    for (int i = 0; i < 2; ++i) {
      accounts_.LoadStarted(kFirst, true);
      LookUp(kFirst, SlotState::kLoading, phase);
      accounts_.LoadEnded(kFirst, true, 0.5);
    }
    for (int i = 0; i < 3; ++i) LookUp(kFirst, SlotState::kEmpty, phase);
    for (int i = 0; i < 4; ++i) LookUp(kOther, SlotState::kResident, phase);
  }
  const auto expect = [](const LookupCounts& counts,
                         const Metrics::Lookups& metric) {
    EXPECT_EQ(counts.prefetched, 1u);
    EXPECT_EQ(counts.prefetched_late, 2u);
    EXPECT_EQ(counts.missed, 3u);
    EXPECT_EQ(counts.resident, 4u);
    EXPECT_EQ(metric.prefetched.Value(), 1);
    EXPECT_EQ(metric.prefetched_late.Value(), 2);
    EXPECT_EQ(metric.missed.Value(), 3);
    EXPECT_EQ(metric.resident.Value(), 4);
  };
  expect(accounts_.decode(), metrics_.lookups_decode);
  expect(accounts_.prefill(), metrics_.lookups_prefill);
  for (const int32_t layer : {0, 1}) {
    const double hits = layer == 0 ? 0 : 10;
    const prometheus::Labels label = {{"layer", std::to_string(layer)}};
    EXPECT_EQ(accounts_.layer(layer).lookups, 10u);
    EXPECT_EQ(static_cast<double>(accounts_.layer(layer).hits), hits);
    EXPECT_EQ(metrics_.layer_lookups.Add(label).Value(), 10);
    EXPECT_EQ(metrics_.layer_hits.Add(label).Value(), hits);
  }
}

TEST_F(CacheAccountsTest, BytesOfAGuessAreUsedOrWasted) {
  Load(kFirst, true);
  ExpectBytes(0, 0, 0);  // neither yet
  LookUp(kFirst, SlotState::kResident);
  ExpectBytes(0, kBlob, 0);
  accounts_.LoadStarted(kOther, true);
  LookUp(kOther, SlotState::kLoading);
  ExpectBytes(0, kBlob, 0);
  accounts_.LoadEnded(kOther, true, 0.5);
  ExpectBytes(0, 2 * kBlob, 0);
  // Used ones are wasted no more.
  accounts_.Evicted(kFirst, false);
  accounts_.Evicted(kOther, false);
  ExpectBytes(0, 2 * kBlob, 0);
  Load(kFirst, true);
  accounts_.Evicted(kFirst, false);
  ExpectBytes(0, 2 * kBlob, kBlob);
  Load(kFirst, false);
  ExpectBytes(kBlob, 2 * kBlob, kBlob);
}

TEST_F(CacheAccountsTest, BytesOfACancelledLoadAreThoseOfItsCause) {
  accounts_.LoadStarted(kFirst, true);
  Cancel(kFirst, 100);
  ExpectBytes(0, 0, 100);
  // Of a guess that a step wanted before it was given up.
  accounts_.LoadStarted(kFirst, true);
  LookUp(kFirst, SlotState::kLoading);
  Cancel(kFirst, 10);
  ExpectBytes(0, 0, 110);
  accounts_.LoadStarted(kFirst, false);
  Cancel(kFirst, 7);
  ExpectBytes(7, 0, 110);
  EXPECT_EQ(accounts_.bytes_loaded(), 117u);
  EXPECT_EQ(accounts_.loads(), 0u);
  EXPECT_EQ(accounts_.guess_bytes_under_way(), 0);
}

TEST_F(CacheAccountsTest, SecondsAddUp) {
  accounts_.Stalled(1, Phase::kPrefill);
  accounts_.Stalled(2, Phase::kDecode);
  EXPECT_EQ(accounts_.stall_seconds(), 3);
  EXPECT_EQ(metrics_.stall_seconds_prefill.Value(), 1);
  EXPECT_EQ(metrics_.stall_seconds_decode.Value(), 2);
  accounts_.SetLinkBusy(4);
  accounts_.SetLinkBusy(6);
  EXPECT_EQ(accounts_.link_busy_seconds(), 6);
  EXPECT_EQ(metrics_.link_busy_seconds.Value(), 6);
  Load(kFirst, false);
  Load(kOther, true);
  const prometheus::ClientMetric::Histogram transfers =
      metrics_.transfer_seconds.Collect().histogram;
  EXPECT_EQ(transfers.sample_count, 2u);
  EXPECT_EQ(transfers.sample_sum, 1);
}

}  // namespace
}  // namespace bullpen
