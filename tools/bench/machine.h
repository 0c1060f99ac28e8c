#pragma once

#include <string>

#include "nlohmann/json.hpp"

namespace bullpen {

// What this binary was built from, with "-dirty" where the tree had changes;
// "unknown" without git.
extern const char kCommit[];

// The processor's name as it gives it itself.
std::string CpuName();

// What a figure means nothing without: CPU, CPUs of this process, load averages
// of 1, 5 and 15 minutes, commit, time.
nlohmann::ordered_json MachineJson();

// The same in a line for people.
std::string MachineLine(const nlohmann::ordered_json& machine);

}  // namespace bullpen
