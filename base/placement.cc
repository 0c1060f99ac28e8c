#include "base/placement.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/strings.h"

namespace bullpen {
namespace {

using Cpu = NumaTopology::Cpu;
using Node = NumaTopology::Node;

constexpr std::pair<std::string_view, NumaPolicy> kNames[] = {
    {"auto", NumaPolicy::kAuto},
    {"off", NumaPolicy::kOff},
    {"distribute", NumaPolicy::kDistribute},
    {"isolate", NumaPolicy::kIsolate}};

std::vector<Node> NodesWithBoth(const NumaTopology& topology) {
  std::vector<Node> nodes;
  for (const Node& node : topology.nodes) {
    if (node.memory_bytes > 0 && topology.CpusOf(node.id) > 0) {
      nodes.push_back(node);
    }
  }
  return nodes;
}

NumaPolicy Resolve(const NumaTopology& topology, NumaPolicy policy) {
  const std::vector<Node> nodes = NodesWithBoth(topology);
  switch (policy) {
    case NumaPolicy::kAuto:
      return nodes.size() > 1 ? NumaPolicy::kDistribute : NumaPolicy::kOff;
    case NumaPolicy::kIsolate:
      // With one node there is nothing to keep apart.
      return topology.nodes.size() > 1 && !nodes.empty() ? policy
                                                         : NumaPolicy::kOff;
    case NumaPolicy::kOff:
    case NumaPolicy::kDistribute:
      return policy;
  }
  return policy;
}

// Nodes take turns within each round of siblings, so that no core has two
// workers while another has none. The order of `cpus` breaks ties.
std::vector<int32_t> InTurn(std::vector<Cpu> cpus, bool by_node) {
  std::map<std::pair<int32_t, int32_t>, int32_t> taken;  // by node and sibling
  std::vector<std::tuple<int32_t, int32_t, int32_t, int32_t>> order;
  for (const Cpu& cpu : cpus) {
    const int32_t turn = by_node ? taken[{cpu.node, cpu.sibling}]++ : 0;
    order.emplace_back(cpu.sibling, turn, by_node ? cpu.node : 0, cpu.id);
  }
  std::ranges::sort(order);
  std::vector<int32_t> ids;
  for (const auto& entry : order) ids.push_back(std::get<3>(entry));
  return ids;
}

// Those nodes with memory that have some of the workers.
std::vector<int32_t> NodesOfWorkers(const NumaTopology& topology,
                                    const std::vector<int32_t>& workers) {
  std::set<int32_t> used;
  for (const Cpu& cpu : topology.cpus) {
    if (std::ranges::find(workers, cpu.id) != workers.end()) {
      used.insert(cpu.node);
    }
  }
  std::vector<int32_t> ids;
  for (const Node& node : NodesWithBoth(topology)) {
    if (used.contains(node.id)) ids.push_back(node.id);
  }
  return ids;
}

std::string DescribeNodes(const NumaTopology& topology) {
  std::vector<std::string> nodes;
  for (const Node& node : topology.nodes) {
    std::vector<int32_t> cpus;
    for (const Cpu& cpu : topology.cpus) {
      if (cpu.node == node.id) cpus.push_back(cpu.id);
    }
    nodes.push_back(absl::StrCat(
        node.id, ": ",
        cpus.empty() ? "no CPUs" : absl::StrCat("CPUs ", FormatIdList(cpus)),
        ", ",
        node.memory_bytes == 0 ? "no memory" : FormatBytes(node.memory_bytes)));
  }
  return absl::StrJoin(nodes, "; ");
}

}  // namespace

absl::StatusOr<NumaPolicy> ParseNumaPolicy(std::string_view name) {
  for (const auto& [text, policy] : kNames) {
    if (text == name) return policy;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "numa '", Absl(name), "' is not one of auto, off, distribute, isolate"));
}

Placement Placement::Of(const NumaTopology& topology, NumaPolicy policy,
                        int32_t threads) {
  Placement placement;
  placement.policy = Resolve(topology, policy);
  std::vector<Cpu> cpus = topology.cpus;
  if (placement.policy == NumaPolicy::kIsolate) {
    const std::vector<Node> nodes = NodesWithBoth(topology);
    const Node home = *std::ranges::max_element(nodes, {}, [&](const Node& n) {
      return std::pair(topology.CpusOf(n.id), n.free_bytes);
    });
    std::erase_if(cpus, [&](const Cpu& cpu) { return cpu.node != home.id; });
    placement.memory_nodes = {home.id};
    placement.memory_bytes = home.free_bytes;
  }
  const bool distribute = placement.policy == NumaPolicy::kDistribute;
  placement.cpus = InTurn(std::move(cpus), distribute);
  const int32_t count = static_cast<int32_t>(placement.cpus.size());
  placement.threads = threads > 0 ? threads : count;
  if (distribute) {
    std::vector<int32_t> workers = placement.cpus;
    workers.resize(std::min(count, placement.threads));
    placement.memory_nodes = NodesOfWorkers(topology, workers);
    // One node is no choice to make: the kernel falls back on the others.
    if (placement.memory_nodes.size() < 2) placement.memory_nodes.clear();
  }
  return placement;
}

std::string Placement::Describe(const NumaTopology& topology) const {
  const auto name = std::ranges::find(
      kNames, policy, &std::pair<std::string_view, NumaPolicy>::second);
  std::vector<int32_t> used = cpus;
  const bool pinned = threads > 1 && std::ssize(cpus) >= threads;
  if (pinned) used.resize(static_cast<size_t>(threads));
  std::string memory = "as the kernel likes";
  if (memory_nodes.size() == 1) {
    memory = absl::StrCat("on node ", memory_nodes[0]);
  } else if (memory_nodes.size() > 1) {
    memory = absl::StrCat("on nodes ", FormatIdList(memory_nodes),
                          " in turn, in pages of 4 KiB");
  }
  const std::string nodes =
      topology.nodes.size() == 1
          ? "1 NUMA node"
          : absl::StrCat(topology.nodes.size(), " NUMA nodes (",
                         DescribeNodes(topology), ")");
  return absl::StrCat(nodes, ", policy ", Absl(name->first), ": threads ",
                      threads, pinned ? ", each on one of CPUs " : " on CPUs ",
                      FormatIdList(used), "; memory ", memory);
}

}  // namespace bullpen
