#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/numa.h"
#include "gtest/gtest.h"

namespace bullpen {

// A directory that looks as /sys/devices/system and /proc/self/status do on
// some other machine; removed at the end.
class MadeSystem {
 public:
  MadeSystem() {
    std::string name =
        (std::filesystem::path(testing::TempDir()) / "system-XXXXXX").string();
    root_ = mkdtemp(name.data());
  }
  ~MadeSystem() { std::filesystem::remove_all(root_); }
  MadeSystem(const MadeSystem&) = delete;
  MadeSystem& operator=(const MadeSystem&) = delete;

  void Write(const std::filesystem::path& file, const std::string& text) {
    std::filesystem::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
  }
  // A node of `gib` of memory, three quarters of it free or page cache.
  void AddNode(int32_t id, const std::string& cpus, int64_t gib) {
    const std::string node = std::to_string(id);
    const auto line = [&](const std::string& key, int64_t quarters) {
      return "Node " + node + " " + key + ":  " +
             std::to_string(quarters * gib << 18) + " kB\n";
    };
    Write("node/node" + node + "/cpulist", cpus + "\n");
    Write("node/node" + node + "/meminfo",
          line("MemTotal", 4) + line("MemFree", 1) + line("MemUsed", 3) +
              line("Active(file)", 1) + line("Inactive(file)", 1) +
              line("SReclaimable", 0) + "Node " + node +
              " HugePages_Total:     0\n");
    online_ += (online_.empty() ? "" : ",") + node;
    Write("node/online", online_ + "\n");
  }
  // CPUs of one core.
  void AddCore(const std::vector<int32_t>& cpus) {
    for (const int32_t cpu : cpus) {
      Write("cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list",
            FormatIdList(cpus) + "\n");
    }
  }
  void AllowMemory(const std::string& nodes) {
    Write("status",
          "Name:\tmade\nMems_allowed:\t00000000,00000001\n"
          "Mems_allowed_list:\t" +
              nodes + "\n");
  }

  // For a process that may use `cpus`, as "0-3".
  NumaTopology Read(const std::string& cpus) const {
    return NumaTopology::Read({.system = root_,
                               .status = root_ / "status",
                               .allowed_cpus = *ParseIdList(cpus, 1 << 16)});
  }

 private:
  std::filesystem::path root_;
  std::string online_;
};

}  // namespace bullpen
