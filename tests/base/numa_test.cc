#include "base/numa.h"

#include <limits>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/base/made_system.h"

namespace bullpen {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Cpu = NumaTopology::Cpu;
using Node = NumaTopology::Node;

constexpr int64_t kGiB = int64_t{1} << 30;

std::vector<int32_t> NodeIds(const NumaTopology& topology) {
  std::vector<int32_t> ids;
  for (const Node& node : topology.nodes) ids.push_back(node.id);
  return ids;
}

// As a machine without NUMA reads.
void ExpectOneNode(const NumaTopology& topology, size_t cpus) {
  EXPECT_THAT(NodeIds(topology), ElementsAre(0));
  ASSERT_EQ(topology.cpus.size(), cpus);
  for (const Cpu& cpu : topology.cpus) EXPECT_EQ(cpu.node, 0);
}

TEST(IdListTest, ReadsWhatTheKernelWrites) {
  EXPECT_THAT(*ParseIdList("0-3,8,10-11\n", 16),
              ElementsAre(0, 1, 2, 3, 8, 10, 11));
  EXPECT_THAT(*ParseIdList("7", 8), ElementsAre(7));
  EXPECT_THAT(*ParseIdList("\n", 8), IsEmpty());
  EXPECT_THAT(*ParseIdList("", 8), IsEmpty());
}

TEST(IdListTest, RefusesEverythingElse) {
  for (const char* text :
       {"8",     "0-8",  "3-1",   "1,1",        "2,1",
        "0-2,2", "-1",   "1-",    "-",          ",",
        "1,",    "a",    "1 2",   "+1",         "0x1",
        " 1",    "1--2", "1-2-3", "4294967296", "0-99999999999999999999",
        "1;2"}) {
    EXPECT_EQ(ParseIdList(text, 8), std::nullopt) << "'" << text << "'";
  }
}

TEST(IdListTest, FormattedListsReadBack) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  EXPECT_EQ(FormatIdList({}), "");
  EXPECT_EQ(FormatIdList({5, 0, 2, 1}), "0-2,5");
  for (int round = 0; round < 100; ++round) {
    std::vector<int32_t> ids;
    for (int32_t id = 0; id < 64; ++id) {
      if (random() % 3 != 0) ids.push_back(id);
    }
    EXPECT_EQ(ParseIdList(FormatIdList(ids), 64), ids);
  }
}

TEST(NumaTopologyTest, OneNodeHoldsAllCpus) {
  MadeSystem system;
  system.AddNode(0, "0-3", 8);
  const NumaTopology topology = system.Read("0-3");
  ExpectOneNode(topology, 4);
  EXPECT_EQ(topology.nodes[0].memory_bytes, 8 * kGiB);
  EXPECT_EQ(topology.nodes[0].free_bytes, 6 * kGiB);
}

TEST(NumaTopologyTest, TwoNodesHaveTheirOwnCpusAndMemory) {
  MadeSystem system;
  system.AddNode(0, "0-1,4-5", 8);
  system.AddNode(1, "2-3,6-7", 16);
  const NumaTopology topology = system.Read("0-7");
  EXPECT_THAT(topology.nodes, ElementsAre(Node{0, 8 * kGiB, 6 * kGiB},
                                          Node{1, 16 * kGiB, 12 * kGiB}));
  EXPECT_THAT(topology.cpus,
              ElementsAre(Cpu{0, 0}, Cpu{1, 0}, Cpu{2, 1}, Cpu{3, 1}, Cpu{4, 0},
                          Cpu{5, 0}, Cpu{6, 1}, Cpu{7, 1}));
}

TEST(NumaTopologyTest, IdsOfNodesMayHaveGaps) {
  MadeSystem system;
  for (const int32_t id : {0, 1, 8, 252}) {
    system.AddNode(id, std::to_string(id), 4);
  }
  const NumaTopology topology = system.Read("0-1,8,252");
  EXPECT_THAT(NodeIds(topology), ElementsAre(0, 1, 8, 252));
  EXPECT_EQ(topology.CpusOf(252), 1);
}

TEST(NumaTopologyTest, NodesOfMemoryOrCpusAloneCount) {
  MadeSystem system;
  system.AddNode(0, "0-1", 8);
  system.AddNode(1, "2-3", 0);
  system.AddNode(2, "", 64);
  const NumaTopology topology = system.Read("0-3");
  EXPECT_THAT(NodeIds(topology), ElementsAre(0, 1, 2));
  EXPECT_EQ(topology.CpusOf(1), 2);
  EXPECT_EQ(topology.nodes[1].memory_bytes, 0);
  EXPECT_EQ(topology.CpusOf(2), 0);
  EXPECT_EQ(topology.nodes[2].memory_bytes, 64 * kGiB);
}

TEST(NumaTopologyTest, WhatACpusetForbidsIsNotThere) {
  MadeSystem system;
  system.AddNode(0, "0-3", 8);
  system.AddNode(1, "4-7", 8);
  system.AllowMemory("0");
  const NumaTopology part = system.Read("1-2");
  EXPECT_THAT(NodeIds(part), ElementsAre(0));
  EXPECT_THAT(part.cpus, ElementsAre(Cpu{1, 0}, Cpu{2, 0}));
  const NumaTopology both = system.Read("3-4");
  EXPECT_THAT(NodeIds(both), ElementsAre(0, 1));
  EXPECT_EQ(both.nodes[1].memory_bytes, 0);
}

TEST(NumaTopologyTest, SiblingsAreCountedAmongAllowedCpus) {
  MadeSystem system;
  system.AddNode(0, "0-3", 8);
  system.AddCore({0, 2});
  system.AddCore({1, 3});
  EXPECT_THAT(system.Read("0-3").cpus, ElementsAre(Cpu{0, 0, 0}, Cpu{1, 0, 0},
                                                   Cpu{2, 0, 1}, Cpu{3, 0, 1}));
  EXPECT_THAT(system.Read("1-3").cpus,
              ElementsAre(Cpu{1, 0, 0}, Cpu{2, 0, 0}, Cpu{3, 0, 1}));
}

TEST(NumaTopologyTest, WithoutADescriptionThereIsOneNode) {
  const MadeSystem system;
  ExpectOneNode(system.Read("0-3"), 4);
}

TEST(NumaTopologyTest, SiblingsCountWithoutNodesToo) {
  MadeSystem system;
  system.AddCore({0, 1});
  EXPECT_EQ(system.Read("0-1").cpus[1].sibling, 1);
}

TEST(NumaTopologyTest, NonsenseIsOneNode) {
  const std::vector<std::pair<std::string, std::string>> spoilt = {
      {"node/online", ""},
      {"node/online", "0-1023"},
      {"node/online", "0-4000000000"},
      {"node/online", std::string(200'000, '0')},
      {"node/online", std::string("\0\xff\n", 3)},
      {"node/node1/cpulist", "nonsense"},
      {"node/node1/cpulist", "2"},
      {"node/node1/cpulist", "1-3"},
      {"node/node1/cpulist", "2-99999999"},
      {"node/node1/meminfo", ""},
      {"node/node1/meminfo", "Node 1 MemTotal: many kB\n"},
      {"node/node1/meminfo", "Node 1 MemTotal: -5 kB\n"},
      {"node/node1/meminfo", "Node 1 MemTotal: 9223372036854775807 kB\n"},
  };
  for (const auto& [file, text] : spoilt) {
    SCOPED_TRACE(file + ": " + text.substr(0, 40));
    MadeSystem system;
    system.AddNode(0, "0-1", 8);
    system.AddNode(1, "2-3", 8);
    EXPECT_EQ(system.Read("0-3").nodes.size(), 2);
    system.Write(file, text);
    ExpectOneNode(system.Read("0-3"), 4);
  }
}

TEST(NumaTopologyTest, NonsenseAboutWhatIsAllowedForbidsNothing) {
  MadeSystem system;
  system.AddNode(0, "0-1", 8);
  system.AddNode(1, "2-3", 8);
  system.AllowMemory("none");
  EXPECT_EQ(system.Read("0-3").nodes[1].memory_bytes, 8 * kGiB);
  system.AddCore({2, 3});
  system.Write("cpu/cpu3/topology/thread_siblings_list", "0-1");
  EXPECT_EQ(system.Read("0-3").cpus[3].sibling, 0);
}

TEST(NumaTopologyTest, RandomBytesNeverFail) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  const std::string alphabet = "0123456789-,\n NodeMTtal:kB";
  const char* files[] = {"node/online",
                         "node/node0/cpulist",
                         "node/node1/cpulist",
                         "node/node1/meminfo",
                         "status",
                         "cpu/cpu1/topology/thread_siblings_list"};
  MadeSystem system;
  for (int round = 0; round < 300; ++round) {
    system.AddNode(0, "0-1", 8);
    system.AddNode(1, "2-3", 8);
    system.Write("node/online", "0-1");
    std::string text(random() % 30, ' ');
    for (char& c : text) c = alphabet[random() % alphabet.size()];
    system.Write(files[random() % std::size(files)], text);
    const NumaTopology topology = system.Read("0-3");
    EXPECT_EQ(topology.cpus.size(), 4) << text;
    EXPECT_FALSE(topology.nodes.empty()) << text;
  }
}

TEST(NumaTopologyTest, ThisMachineHasTheCpusOfThisProcess) {
  const NumaTopology topology = NumaTopology::Read();
  std::vector<int32_t> cpus;
  for (const Cpu& cpu : topology.cpus) cpus.push_back(cpu.id);
  EXPECT_EQ(cpus, AllowedCpus());
  EXPECT_FALSE(topology.nodes.empty());
}

}  // namespace
}  // namespace bullpen
