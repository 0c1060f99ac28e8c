#include "engine/heartbeat.h"

#include "gtest/gtest.h"

namespace bullpen {
namespace {

TEST(Heartbeat, IsAliveAtRestAndSilentSinceTheLastBeatOtherwise) {
  Heartbeat heartbeat;
  EXPECT_EQ(heartbeat.silent_seconds(), 0);
  heartbeat.Beat();
  const double first = heartbeat.silent_seconds();
  EXPECT_GT(heartbeat.silent_seconds(), first);
  heartbeat.Rest();
  EXPECT_EQ(heartbeat.silent_seconds(), 0);
}

}  // namespace
}  // namespace bullpen
