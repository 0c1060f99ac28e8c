#include "tools/write_output.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/strings.h"

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

absl::Status RefuseInput(std::string_view flag,
                         const std::filesystem::path& output,
                         const std::filesystem::path& input) {
  std::error_code none;  // one that does not exist is no input
  if (!std::filesystem::equivalent(output, input, none)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(Absl(flag), " ", output.string(),
                   " would write over the file that is read"));
}

}  // namespace bullpen
