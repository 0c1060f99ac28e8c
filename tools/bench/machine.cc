#include "tools/bench/machine.h"

#include <sched.h>
#include <sys/utsname.h>

#include <array>
#include <cstdlib>
#include <ctime>
#include <fstream>

#include "absl/strings/str_format.h"

namespace bullpen {
namespace {

int CpuCount() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 0;
}

// UTC, as RFC 3339 writes it.
std::string TimeNow() {
  const std::time_t now = std::time(nullptr);
  std::tm utc = {};
  gmtime_r(&now, &utc);
  std::array<char, 32> text = {};
  return {text.data(),
          std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc)};
}

}  // namespace

std::string CpuName() {
  std::ifstream file("/proc/cpuinfo");
  std::string name;
  std::string model;
  std::string family;
  for (std::string line; std::getline(file, line) && !line.empty();) {
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    const std::string value = line.substr(colon + 2);
    if (line.starts_with("model name")) name = value;
    if (line.starts_with("cpu family")) family = value;
    if (line.starts_with("model\t")) model = value;
  }
  // Hypervisors shorten the name; family and model still tell generations.
  if (name.empty()) {
    utsname system = {};
    return uname(&system) == 0 ? system.machine : "unknown";
  }
  return absl::StrFormat("%s (family %s, model %s)", name, family, model);
}

nlohmann::ordered_json MachineJson() {
  std::array<double, 3> load = {};
  getloadavg(load.data(), load.size());
  return {{"cpu", CpuName()},
          {"cpus", CpuCount()},
          {"load_average", load},
          {"commit", std::string(kCommit)},
          {"time", TimeNow()}};
}

std::string MachineLine(const nlohmann::ordered_json& machine) {
  const auto& load = machine["load_average"];
  return absl::StrFormat("%s, %d CPUs, load %.1f %.1f %.1f, commit %s",
                         machine["cpu"].get<std::string>(),
                         machine["cpus"].get<int>(), load[0].get<double>(),
                         load[1].get<double>(), load[2].get<double>(),
                         machine["commit"].get<std::string>());
}

}  // namespace bullpen
