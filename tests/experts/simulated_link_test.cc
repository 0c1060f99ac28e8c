#include "engine/experts/simulated_link.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int64_t kChunk = 100;
constexpr ExpertKey kFirst{0, 1};
constexpr ExpertKey kSecond{0, 2};

TEST(SimulatedLink, MovesBytesAtItsRate) {
  SimulatedLink link(/*bytes_per_second=*/1000, kChunk);
  std::vector<SimulatedLink::Arrival> arrived;
  link.Submit(kFirst, 250, Cause::kDemand, /*now=*/5);
  link.RunUntil(5.2, arrived);
  EXPECT_THAT(arrived, IsEmpty());
  link.RunUntil(5.25, arrived);
  ASSERT_THAT(arrived, SizeIs(1));
  EXPECT_EQ(arrived[0].key, kFirst);
  EXPECT_NEAR(arrived[0].time, 5.25, 1e-12);
  EXPECT_NEAR(link.busy_seconds(), 0.25, 1e-12);
}

TEST(SimulatedLink, ADemandOvertakesAGuessAtTheNextChunk) {
  SimulatedLink link(1000, kChunk);
  std::vector<SimulatedLink::Arrival> arrived;
  link.Submit(kFirst, 1000, Cause::kPrefetch, 0);
  link.Submit(kSecond, 200, Cause::kDemand, 0.05);
  link.RunUntilArrival(arrived);
  ASSERT_THAT(arrived, SizeIs(1));
  EXPECT_EQ(arrived[0].key, kSecond);
  EXPECT_NEAR(arrived[0].time, 0.1 + 0.2, 1e-12);
  arrived.clear();
  link.RunUntilArrival(arrived);
  ASSERT_THAT(arrived, SizeIs(1));
  EXPECT_NEAR(arrived[0].time, 1.2, 1e-12);
}

TEST(SimulatedLink, APromotedGuessKeepsWhatItHas) {
  SimulatedLink link(1000, kChunk);
  std::vector<SimulatedLink::Arrival> arrived;
  link.Submit(kFirst, 200, Cause::kPrefetch, 0);
  link.Submit(kSecond, 200, Cause::kPrefetch, 0);
  EXPECT_EQ(link.queued_guess_bytes(), 400);
  link.Promote(kSecond, 0.1);
  link.RunUntilArrival(arrived);
  ASSERT_THAT(arrived, SizeIs(1));
  EXPECT_EQ(arrived[0].key, kSecond);
  EXPECT_NEAR(arrived[0].time, 0.3, 1e-12);
  EXPECT_EQ(link.queued_guess_bytes(), 100);
}

TEST(SimulatedLink, ACancelledGuessMovesNoFurther) {
  SimulatedLink link(1000, kChunk);
  std::vector<SimulatedLink::Arrival> arrived;
  link.Submit(kFirst, 1000, Cause::kPrefetch, 0);
  EXPECT_EQ(link.Cancel(kFirst, 0.05), 900);  // one chunk is moving
  EXPECT_EQ(link.queued_guess_bytes(), 0);
  link.Submit(kSecond, 200, Cause::kDemand, 0.05);
  EXPECT_EQ(link.Cancel(kSecond, 0.06), 0);
  link.RunUntil(10, arrived);
  ASSERT_THAT(arrived, SizeIs(1));
  EXPECT_EQ(arrived[0].key, kSecond);
  EXPECT_NEAR(arrived[0].time, 0.3, 1e-12);
  EXPECT_EQ(link.moved_bytes(), 300);
}

TEST(SimulatedLink, CountsTheTimeInWhichDemandsAreUnderWay) {
  SimulatedLink link(1000, kChunk);
  std::vector<SimulatedLink::Arrival> arrived;
  link.Submit(kFirst, 300, Cause::kPrefetch, 0);
  link.Submit(kSecond, 100, Cause::kDemand, 0.05);  // waits until 0.1
  link.RunUntil(0.25, arrived);
  EXPECT_NEAR(link.demand_seconds(), 0.15, 1e-12);
  EXPECT_NEAR(link.busy_seconds(), 0.3, 1e-12);
  link.Promote(kFirst, 0.25);  // its second chunk is moving
  link.RunUntil(1, arrived);
  EXPECT_NEAR(link.demand_seconds(), 0.15 + 0.15, 1e-12);
  EXPECT_NEAR(link.busy_seconds(), 0.4, 1e-12);
  // A guess whose last chunk moves is waited for as well.
  link.Submit(kFirst, 100, Cause::kPrefetch, 2);
  link.Promote(kFirst, 2.04);
  EXPECT_NEAR(link.demand_seconds(), 0.3 + 0.06, 1e-12);
}

TEST(SimulatedLink, DemandsThatWaitTogetherCountOnce) {
  SimulatedLink link(1000, kChunk);
  std::vector<SimulatedLink::Arrival> arrived;
  link.Submit(kFirst, 200, Cause::kDemand, 0);
  link.Submit(kSecond, 100, Cause::kDemand, 0);
  link.RunUntil(1, arrived);
  EXPECT_NEAR(link.demand_seconds(), 0.3, 1e-12);
}

TEST(SimulatedLink, APromotedGuessGoesBehindTheDemands) {
  SimulatedLink link(1000, kChunk);
  std::vector<SimulatedLink::Arrival> arrived;
  link.Submit(kFirst, 200, Cause::kPrefetch, 0);
  link.Submit(kSecond, 200, Cause::kDemand, 0);
  link.Promote(kFirst, 0);
  link.RunUntilArrival(arrived);
  ASSERT_THAT(arrived, SizeIs(1));
  EXPECT_EQ(arrived[0].key, kSecond);
}

TEST(SimulatedLink, AGuessMovesInChunksOfItsOwn) {
  constexpr int64_t kMiB = 1 << 20;
  SimulatedLink link(kMiB, /*chunk_bytes=*/kMiB);
  std::vector<SimulatedLink::Arrival> arrived;
  link.Submit(kFirst, kMiB, Cause::kPrefetch, 0);
  link.Submit(kSecond, kMiB, Cause::kDemand, 0.1);
  link.RunUntilArrival(arrived);
  ASSERT_THAT(arrived, SizeIs(1));
  EXPECT_EQ(arrived[0].key, kSecond);
  EXPECT_NEAR(arrived[0].time, 0.25 + 1, 1e-12);
}

TEST(SimulatedLink, WithoutARateArrivesAtOnce) {
  SimulatedLink link(0, kChunk);
  std::vector<SimulatedLink::Arrival> arrived;
  link.Submit(kFirst, 1 << 30, Cause::kPrefetch, 3);
  link.RunUntil(3, arrived);
  ASSERT_THAT(arrived, SizeIs(1));
  EXPECT_EQ(arrived[0].time, 3);
  EXPECT_EQ(link.busy_seconds(), 0);
}

}  // namespace
}  // namespace bullpen
