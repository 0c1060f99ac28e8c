#include "base/available_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <map>
#include <string>
#include <vector>

namespace bullpen {
namespace {

namespace fs = std::filesystem;

std::optional<int64_t> ReadNumber(const fs::path& path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;  // No such file, or "max".
}

// File pages of the group and of all below it. Those of version 1 have names
// of their own; the plain ones are without what is below.
int64_t PageCacheBytes(const fs::path& directory) {
  std::map<std::string, int64_t> stat;
  std::ifstream file(directory / "memory.stat");
  std::string key;
  for (int64_t value = 0; file >> key >> value;) stat[key] = value;
  const bool version1 = stat.contains("total_inactive_file");
  const std::string prefix = version1 ? "total_" : "";
  return stat[prefix + "inactive_file"] + stat[prefix + "active_file"];
}

// This process's cgroups and all above them: a limit anywhere on the way
// counts.
std::vector<fs::path> CgroupsOfSelf() {
  std::vector<fs::path> groups;
  std::ifstream lines("/proc/self/cgroup");
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool version2 = controllers.empty();
    if (!version2 && controllers != "memory") continue;
    const std::string root =
        version2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    std::string path = line.substr(second + 1);
    while (true) {
      groups.push_back(path == "/" ? root : root + path);
      if (path.size() <= 1) break;
      path.resize(std::max<size_t>(path.rfind('/'), 1));
    }
  }
  return groups;
}

}  // namespace

std::optional<int64_t> BytesLeftInCgroup(const fs::path& directory) {
  const bool version2 = fs::exists(directory / "memory.current");
  const std::optional<int64_t> most = ReadNumber(
      directory / (version2 ? "memory.max" : "memory.limit_in_bytes"));
  const std::optional<int64_t> used = ReadNumber(
      directory / (version2 ? "memory.current" : "memory.usage_in_bytes"));
  if (!most.has_value() || !used.has_value()) return std::nullopt;
  const int64_t kept = std::max<int64_t>(*used - PageCacheBytes(directory), 0);
  return std::max<int64_t>(*most - kept, 0);
}

int64_t AvailableBytes() {
  int64_t available = std::numeric_limits<int64_t>::max();
  std::ifstream meminfo("/proc/meminfo");
  for (std::string key, rest; meminfo >> key && std::getline(meminfo, rest);) {
    if (key == "MemAvailable:") available = std::stoll(rest) * 1024;
  }
  for (const fs::path& group : CgroupsOfSelf()) {
    available =
        std::min(available, BytesLeftInCgroup(group).value_or(available));
  }
  return available;
}

}  // namespace bullpen
