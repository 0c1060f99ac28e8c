#include "base/placement.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/base/made_system.h"

namespace bullpen {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int64_t kGiB = int64_t{1} << 30;

class TwoSocketsTest : public testing::Test {
 protected:
  // As such machines count: first the cores of each socket, then the second
  // threads of all cores.
  TwoSocketsTest() {
    system_.AddNode(0, "0-1,4-5", 8);
    system_.AddNode(1, "2-3,6-7", 16);
    for (int32_t core = 0; core < 4; ++core) {
      system_.AddCore({core, core + 4});
    }
  }

  MadeSystem system_;
};

TEST(NumaPolicyTest, NamesAreRead) {
  EXPECT_EQ(*ParseNumaPolicy("auto"), NumaPolicy::kAuto);
  EXPECT_EQ(*ParseNumaPolicy("off"), NumaPolicy::kOff);
  EXPECT_EQ(*ParseNumaPolicy("distribute"), NumaPolicy::kDistribute);
  EXPECT_EQ(*ParseNumaPolicy("isolate"), NumaPolicy::kIsolate);
  EXPECT_THAT(ParseNumaPolicy("numactl").status().message(),
              HasSubstr("numa 'numactl' is not one of auto, off"));
}

TEST(PlacementTest, OneNodeTakesCpusInTheirOrderUnderEveryPolicy) {
  MadeSystem system;
  system.AddNode(0, "0-7", 8);
  for (const NumaPolicy policy :
       {NumaPolicy::kAuto, NumaPolicy::kOff, NumaPolicy::kDistribute,
        NumaPolicy::kIsolate}) {
    const Placement placement = Placement::Of(system.Read("1-4"), policy, 0);
    EXPECT_THAT(placement.cpus, ElementsAre(1, 2, 3, 4));
    EXPECT_EQ(placement.threads, 4);
    EXPECT_THAT(placement.memory_nodes, IsEmpty());
    EXPECT_EQ(placement.memory_bytes, 0);
  }
}

TEST(PlacementTest, EachCoreHasAWorkerBeforeAnyHasTwo) {
  MadeSystem system;
  system.AddNode(0, "0-5", 8);
  system.AddCore({0, 1});
  system.AddCore({2, 3});
  system.AddCore({4, 5});
  EXPECT_THAT(Placement::Of(system.Read("0-5"), NumaPolicy::kAuto, 3).cpus,
              ElementsAre(0, 2, 4, 1, 3, 5));
}

TEST_F(TwoSocketsTest, AutoSpreadsThreadsAndMemory) {
  const Placement placement =
      Placement::Of(system_.Read("0-7"), NumaPolicy::kAuto, 4);
  EXPECT_EQ(placement.policy, NumaPolicy::kDistribute);
  EXPECT_THAT(placement.cpus, ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
  EXPECT_THAT(placement.memory_nodes, ElementsAre(0, 1));
  EXPECT_EQ(placement.memory_bytes, 0);
}

TEST_F(TwoSocketsTest, OffTakesThemForOne) {
  const Placement placement =
      Placement::Of(system_.Read("0-7"), NumaPolicy::kOff, 0);
  EXPECT_THAT(placement.cpus, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_EQ(placement.threads, 8);
  EXPECT_THAT(placement.memory_nodes, IsEmpty());
}

TEST_F(TwoSocketsTest, IsolateStaysOnTheNodeWithMostCpus) {
  const Placement placement =
      Placement::Of(system_.Read("1-7"), NumaPolicy::kIsolate, 0);
  EXPECT_THAT(placement.cpus, ElementsAre(2, 3, 6, 7));
  EXPECT_EQ(placement.threads, 4);
  EXPECT_THAT(placement.memory_nodes, ElementsAre(1));
  EXPECT_EQ(placement.memory_bytes, 12 * kGiB);
}

TEST_F(TwoSocketsTest, IsolateAmongEqualsTakesTheOneWithMoreMemory) {
  EXPECT_THAT(
      Placement::Of(system_.Read("0-7"), NumaPolicy::kIsolate, 1).memory_nodes,
      ElementsAre(1));
}

TEST_F(TwoSocketsTest, ACpusetOnOneSocketIsNotSpread) {
  const Placement placement =
      Placement::Of(system_.Read("2-3"), NumaPolicy::kAuto, 0);
  EXPECT_EQ(placement.policy, NumaPolicy::kOff);
  EXPECT_THAT(placement.cpus, ElementsAre(2, 3));
}

TEST_F(TwoSocketsTest, OneThreadHasNothingToShare) {
  const Placement placement =
      Placement::Of(system_.Read("0-7"), NumaPolicy::kDistribute, 1);
  EXPECT_EQ(placement.threads, 1);
  EXPECT_THAT(placement.memory_nodes, IsEmpty());
}

TEST_F(TwoSocketsTest, WhereOneNodeIsShortOfCpusTheOtherGoesOn) {
  EXPECT_THAT(
      Placement::Of(system_.Read("0,2-3,6-7"), NumaPolicy::kDistribute, 0).cpus,
      ElementsAre(0, 2, 3, 6, 7));
}

TEST_F(TwoSocketsTest, MoreThreadsThanCpusAreKept) {
  const Placement placement =
      Placement::Of(system_.Read("0-7"), NumaPolicy::kDistribute, 12);
  EXPECT_EQ(placement.threads, 12);
  EXPECT_EQ(placement.cpus.size(), 8);
  EXPECT_THAT(placement.memory_nodes, ElementsAre(0, 1));
}

TEST_F(TwoSocketsTest, TheLogSaysNodesPolicyAndCpus) {
  const NumaTopology topology = system_.Read("0-7");
  EXPECT_EQ(Placement::Of(topology, NumaPolicy::kAuto, 4).Describe(topology),
            "2 NUMA nodes (0: CPUs 0-1,4-5, 8.00 GiB; 1: CPUs 2-3,6-7, 16.00 "
            "GiB), policy distribute: threads 4, each on one of CPUs 0-3; "
            "memory on nodes 0-1 in turn, in pages of 4 KiB");
  EXPECT_EQ(Placement::Of(topology, NumaPolicy::kIsolate, 1).Describe(topology),
            "2 NUMA nodes (0: CPUs 0-1,4-5, 8.00 GiB; 1: CPUs 2-3,6-7, 16.00 "
            "GiB), policy isolate: threads 1 on CPUs 2-3,6-7; memory on node "
            "1");
  MadeSystem small;
  const NumaTopology one = small.Read("0-1");
  EXPECT_EQ(Placement::Of(one, NumaPolicy::kAuto, 2).Describe(one),
            "1 NUMA node, policy off: threads 2, each on one of CPUs 0-1; "
            "memory as the kernel likes");
}

TEST(PlacementTest, FourNodesWithGapsTakeTurns) {
  MadeSystem system;
  for (int32_t node = 0; node < 4; ++node) {
    system.AddNode(node * 8,
                   FormatIdList({node * 4, node * 4 + 1, node * 4 + 2}), 4);
  }
  const NumaTopology topology = system.Read("0-2,4-6,8-10,12-14");
  const Placement placement = Placement::Of(topology, NumaPolicy::kAuto, 8);
  EXPECT_THAT(placement.cpus,
              ElementsAre(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14));
  EXPECT_THAT(placement.memory_nodes, ElementsAre(0, 8, 16, 24));
  EXPECT_THAT(Placement::Of(topology, NumaPolicy::kAuto, 2).memory_nodes,
              ElementsAre(0, 8));
}

TEST(PlacementTest, NodesWithoutCpusHoldNoWeights) {
  MadeSystem system;
  system.AddNode(0, "0-1", 8);
  system.AddNode(1, "2-3", 8);
  system.AddNode(2, "", 512);
  EXPECT_THAT(
      Placement::Of(system.Read("0-3"), NumaPolicy::kAuto, 0).memory_nodes,
      ElementsAre(0, 1));
  // One socket with such a node beside it is one node to the workers.
  EXPECT_EQ(Placement::Of(system.Read("0-1"), NumaPolicy::kAuto, 0).policy,
            NumaPolicy::kOff);
}

TEST(PlacementTest, NodesWithoutMemoryHaveWorkersAllTheSame) {
  MadeSystem system;
  system.AddNode(0, "0-1", 8);
  system.AddNode(1, "2-5", 0);
  const NumaTopology topology = system.Read("0-5");
  EXPECT_EQ(Placement::Of(topology, NumaPolicy::kAuto, 0).policy,
            NumaPolicy::kOff);
  const Placement spread = Placement::Of(topology, NumaPolicy::kDistribute, 0);
  EXPECT_THAT(spread.cpus, ElementsAre(0, 2, 1, 3, 4, 5));
  EXPECT_THAT(spread.memory_nodes, IsEmpty());
  EXPECT_THAT(Placement::Of(topology, NumaPolicy::kIsolate, 0).cpus,
              ElementsAre(0, 1));
}

}  // namespace
}  // namespace bullpen
