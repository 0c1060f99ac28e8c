#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/numa.h"

namespace bullpen {

enum class NumaPolicy : uint8_t {
  kAuto,        // kDistribute where two nodes have CPUs and memory, else kOff
  kOff,         // the machine is one node; memory lies where the kernel likes
  kDistribute,  // workers and pages spread evenly over the nodes
  kIsolate,     // workers and pages on the node with most CPUs
};

// auto, off, distribute or isolate; InvalidArgument names the text.
absl::StatusOr<NumaPolicy> ParseNumaPolicy(std::string_view name);

// Where the compute workers run and the memory that they read lies.
struct Placement {
  // `threads` >= 0 as in ModelOptions: 0 is all CPUs of the placement.
  static Placement Of(const NumaTopology& topology, NumaPolicy policy,
                      int32_t threads);

  // For the log: nodes, policy, CPUs and memory in one line.
  std::string Describe(const NumaTopology& topology) const;

  NumaPolicy policy = NumaPolicy::kOff;  // never kAuto
  int32_t threads = 1;
  // CPUs in the order in which workers take them: one of each core before any
  // core's second; of kDistribute the nodes in turn.
  std::vector<int32_t> cpus;
  // For HugeBuffer: nodes that hold its pages. Empty: as the kernel likes.
  std::vector<int32_t> memory_nodes;
  // What kIsolate's node has free for this process; 0: no limit of its own.
  int64_t memory_bytes = 0;
};

}  // namespace bullpen
