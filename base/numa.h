#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/cpu_affinity.h"

namespace bullpen {

// Where a machine's NUMA nodes are described; the defaults are this machine
// as this process may use it.
struct NumaSource {
  std::filesystem::path system = "/sys/devices/system";  // node/ and cpu/
  std::filesystem::path status = "/proc/self/status";    // allowed nodes
  std::vector<int32_t> allowed_cpus = AllowedCpus();     // ascending
};

// What this process may use of the machine's NUMA nodes: CPUs, and memory that
// is nearer to some of them than to others.
struct NumaTopology {
  struct Cpu {
    int32_t id = 0;
    int32_t node = 0;
    int32_t sibling = 0;  // allowed CPUs of the same core with a smaller id
    friend bool operator==(const Cpu&, const Cpu&) = default;
  };
  struct Node {
    int32_t id = 0;
    int64_t memory_bytes = 0;  // 0: it has none for this process
    int64_t free_bytes = 0;    // with the page cache, which gives way
    friend bool operator==(const Node&, const Node&) = default;
  };

  // Never fails: a kernel without NUMA is one node, 0, whose memory is not
  // known, and so is a description that makes no sense (with a warning).
  static NumaTopology Read(const NumaSource& source = {});

  int32_t CpusOf(int32_t node) const;

  std::vector<Cpu> cpus;    // ascending ids; all allowed ones
  std::vector<Node> nodes;  // ascending ids; those with CPUs or memory
};

// The kernel's form of sets, as "0-3,8": ascending, blanks at the end allowed,
// nothing is the empty set. Nothing: it is something else, or ids reach
// `limit`.
std::optional<std::vector<int32_t>> ParseIdList(std::string_view text,
                                                int32_t limit);
// The other way, of ids in any order.
std::string FormatIdList(std::vector<int32_t> ids);

}  // namespace bullpen
