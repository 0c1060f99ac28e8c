#include "tools/bench/report.h"

#include "tools/bench/machine.h"
#include "tools/write_output.h"

namespace bullpen {

nlohmann::ordered_json NewReport(const char* bench) {
  return {{"bench", bench}, {"machine", MachineJson()}};
}

absl::Status WriteReport(const nlohmann::ordered_json& report,
                         const std::filesystem::path& path) {
  if (path.empty()) return absl::OkStatus();
  return WriteOutput(path, report.dump(1) + "\n");
}

}  // namespace bullpen
