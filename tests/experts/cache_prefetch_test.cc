// Guesses in the cache: whose slots they get, what becomes of them.

#include <vector>

#include "engine/experts/cache.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/experts/cache_fixture.h"

namespace bullpen {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using CachePrefetchTest = CacheTest;

TEST_F(CachePrefetchTest, APrefetchedExpertIsAHitWhenItsLayerRuns) {
  Create({2, 2, 2});
  EXPECT_EQ(
      cache_->Prefetch(std::vector<ExpertKey>{{1, 4}, {1, 5}, {1, 6}, {2, 3}}),
      3);
  while (transfers_.under_way() > 0) cache_->Prefetch({});
  EXPECT_THAT(Resident(1), ElementsAre(4, 5));  // 6 may not push out a guess
  EXPECT_THAT(Resident(2), ElementsAre(3));
  EXPECT_THAT(Step(1, {4, 5}), ElementsAre(4, 5));
  EXPECT_EQ(cache_->Snapshot().layers[1].hits, 2u);
  EXPECT_EQ(metrics_.TransferBytesBetween("disk", "ram").demand.Value(), 0);
  EXPECT_EQ(metrics_.lookups_decode.prefetched.Value(), 2);
  EXPECT_EQ(metrics_.TransferBytesBetween("disk", "ram").prefetch_used.Value(),
            2 * 2 * 8192);
  // A second use finds it resident; a guess that nobody used is wasted when
  // it goes.
  Step(1, {4, 5});
  EXPECT_EQ(metrics_.lookups_decode.resident.Value(), 2);
  EXPECT_EQ(
      metrics_.TransferBytesBetween("disk", "ram").prefetch_wasted.Value(), 0);
  Step(2, {0, 1});
  EXPECT_EQ(
      metrics_.TransferBytesBetween("disk", "ram").prefetch_wasted.Value(),
      3 * 8192);
  EXPECT_EQ(metrics_.evictions_demand.Value(), 1);
}

TEST_F(CachePrefetchTest, ALatePrefetchIsPromotedAndAwaited) {
  Create({2, 2, 2});
  reader_.CloseGate();
  cache_->Prefetch(std::vector<ExpertKey>{{0, 1}, {0, 2}});
  reader_.AwaitAtGate(2);
  ExpertCache::Acquisition step = Acquire(0, {2});
  reader_.OpenGate();
  EXPECT_THAT(Ids(step.Next()), ElementsAre(2));
  EXPECT_TRUE(step.Next().empty());
  EXPECT_EQ(cache_->Snapshot().layers[0].hits, 0u);
}

TEST_F(CachePrefetchTest, ALatePrefetchIsReadBeforeOtherGuesses) {
  TransferQueue one_thread(reader_, {.threads = 1, .chunk_bytes = 4096});
  CreateOn(one_thread, {2, 2, 2});
  reader_.CloseGate();
  cache_->Prefetch(std::vector<ExpertKey>{{1, 1}, {2, 2}, {0, 3}});
  reader_.AwaitAtGate(1);  // the first of the chunks of 1
  {
    ExpertCache::Acquisition step = Acquire(0, {3});
    reader_.OpenGate();
    EXPECT_THAT(Ids(step.Next()), ElementsAre(3));
  }
  const ExpertLocation& place = model_.catalog.layers[0].experts[3];
  EXPECT_EQ(reader_.log()[1].file, place.file);
  EXPECT_EQ(reader_.log()[1].offset, place.offset);
  cache_.reset();  // before its queue
}

TEST_F(CachePrefetchTest, WhatArrivedUnseenBeforeItsLayerRunsIsNotLate) {
  Create({2, 2, 2});
  cache_->Prefetch(std::vector<ExpertKey>{{1, 4}});
  // Until the link is at rest, without a look at what it has brought.
  double busy = 0;
  do {
    busy = transfers_.busy_seconds();
  } while (busy == 0 || busy != transfers_.busy_seconds());
  EXPECT_THAT(Step(1, {4}), ElementsAre(4));
  EXPECT_EQ(cache_->accounts().decode().prefetched, 1u);
}

TEST_F(CachePrefetchTest, WhomAGuessPushesOutIsCountedAsThat) {
  Create({1, 1, 1});
  Step(1, {0});
  cache_->Prefetch(std::vector<ExpertKey>{{1, 4}});
  EXPECT_EQ(metrics_.evictions_prefetch.Value(), 1);
  EXPECT_EQ(metrics_.evictions_demand.Value(), 0);
}

TEST_F(CachePrefetchTest, AGuessThatItsLayerDidNotWantIsReadNoFurther) {
  Create({4, 4, 4});
  reader_.CloseGate();
  cache_->Prefetch(std::vector<ExpertKey>{{1, 4}, {1, 5}});
  reader_.AwaitAtGate(2);  // two of the chunks of 4, nothing of 5
  cache_->Prefetch(std::vector<ExpertKey>{{1, 6}, {2, 7}});
  {
    ExpertCache::Acquisition step = Acquire(1, {5});
    EXPECT_THAT(cache_->Snapshot().layers[1].loading, ElementsAre(4, 5));
    reader_.OpenGate();
    EXPECT_THAT(Ids(step.Next()), ElementsAre(5));
    EXPECT_THAT(step.Next(), IsEmpty());
  }
  while (transfers_.under_way() > 0) cache_->Prefetch({});
  EXPECT_THAT(Resident(1), ElementsAre(5));  // the layer of 7 has not run
  EXPECT_THAT(Resident(2), ElementsAre(7));
  EXPECT_EQ(cache_->accounts().guess_bytes_under_way(), 0);
  EXPECT_EQ(cache_->accounts().transferred().prefetch_used, 16384);
  EXPECT_EQ(cache_->accounts().transferred().prefetch_wasted, 2 * 4096);
}

TEST_F(CachePrefetchTest,
       ACancelledGuessThatIsWantedAfterAllLoadsFromItsStart) {
  TransferQueue one_thread(reader_, {.threads = 1, .chunk_bytes = 4096});
  CreateOn(one_thread, {4, 4, 4});
  reader_.CloseGate();
  cache_->Prefetch(std::vector<ExpertKey>{{1, 4}});
  reader_.AwaitAtGate(1);  // the first of its chunks
  {
    ExpertCache::Acquisition step = Acquire(1, {});
  }
  {
    ExpertCache::Acquisition step = Acquire(1, {4});
    EXPECT_EQ(cache_->accounts().decode().missed, 1u);
    reader_.OpenGate();
    const std::span<const ReadyExpert> group = step.Next();
    ASSERT_THAT(Ids(group), ElementsAre(4));
    EXPECT_TRUE(group[0].status.ok()) << group[0].status;
    EXPECT_TRUE(Right(1, group[0]));
  }
  EXPECT_EQ(cache_->accounts().transferred().prefetch_wasted, 4096);
  EXPECT_EQ(cache_->accounts().transferred().demand, 16384);
  cache_.reset();  // before its queue
}

TEST_F(CachePrefetchTest, GuessesThatFillALayerDoNotBlockItsStep) {
  Create({1, 1, 1});
  reader_.CloseGate();
  cache_->Prefetch(std::vector<ExpertKey>{{0, 1}, {1, 1}, {2, 1}});
  reader_.AwaitAtGate(2);
  ExpertCache::Acquisition step = Acquire(2, {6, 7});
  reader_.OpenGate();
  EXPECT_THAT(Ids(step.Next()), ElementsAre(6));
  EXPECT_THAT(Ids(step.Next()), ElementsAre(7));
  EXPECT_TRUE(step.Next().empty());
}

TEST_F(CachePrefetchTest, AGuessNeverTouchesTheLayerThatRuns) {
  Create({1, 1, 1});
  Step(0, {3});
  ExpertCache::Acquisition step = Acquire(0, {3});
  EXPECT_THAT(Ids(step.Next()), ElementsAre(3));
  cache_->Prefetch(std::vector<ExpertKey>{{0, 5}});
  EXPECT_EQ(transfers_.under_way(), 0);
  EXPECT_THAT(Resident(0), ElementsAre(3));
}

TEST_F(CachePrefetchTest, HalfOfTheQueueStaysFreeForDemands) {
  TransferQueue four(reader_, {.capacity = 4, .chunk_bytes = 4096});
  CreateOn(four, {4, 4, 4});
  reader_.CloseGate();
  EXPECT_EQ(cache_->Prefetch(std::vector<ExpertKey>{{1, 1}, {1, 2}, {1, 3}}),
            2);
  {
    ExpertCache::Acquisition step = Acquire(0, {4, 5, 6});
    EXPECT_THAT(cache_->Snapshot().layers[0].loading, ElementsAre(4, 5));
  }
  reader_.OpenGate();
  cache_.reset();  // before its queue
}

TEST_F(CachePrefetchTest, NoGuessTakesTheSlotOfWhatIsExpected) {
  Create({1, 1, 1});
  Step(1, {0});
  EXPECT_TRUE(cache_->Expect({1, 0}));
  EXPECT_FALSE(cache_->Expect({1, 4}));
  EXPECT_EQ(cache_->Prefetch(std::vector<ExpertKey>{{1, 4}}), 0);
  EXPECT_THAT(Resident(1), ElementsAre(0));
}

TEST_F(CachePrefetchTest, WhatIsExpectedOfTheLayerThatRunsMayStillGo) {
  Create({1, 1, 1});
  Step(0, {3});
  ExpertCache::Acquisition step = Acquire(0, {3, 5});
  EXPECT_THAT(Ids(step.Next()), ElementsAre(3));
  EXPECT_TRUE(cache_->Expect({0, 3}));
  EXPECT_THAT(Ids(step.Next()), ElementsAre(5));
}

}  // namespace
}  // namespace bullpen
