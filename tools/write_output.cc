#include "tools/write_output.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace bullpen {

absl::Status WriteOutput(const std::filesystem::path& path,
                         std::string_view text) {
  errno = 0;
  std::ofstream file(path);
  file << text;
  file.flush();
  if (file) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("cannot write ", path.string(), ": ", std::strerror(errno)));
}

}  // namespace bullpen
