#include "tools/bench/report.h"

#include <fstream>

#include "base/strings.h"
#include "tools/bench/machine.h"

namespace bullpen {

nlohmann::ordered_json NewReport(const char* bench) {
  return {{"bench", bench}, {"machine", MachineJson()}};
}

absl::Status WriteReport(const nlohmann::ordered_json& report,
                         const std::filesystem::path& path) {
  if (path.empty()) return absl::OkStatus();
  std::ofstream file(path);
  file << report.dump(1) << '\n';
  file.flush();
  if (file) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("--json: cannot write '", path.string(), "'"));
}

}  // namespace bullpen
