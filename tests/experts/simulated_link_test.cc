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
