#pragma once

#include <filesystem>
#include <string_view>

#include "absl/status/status.h"

namespace bullpen {

// A result for people: made, or written over what is there.
absl::Status WriteOutput(const std::filesystem::path& path,
                         std::string_view text);

// INVALID_ARGUMENT if the output that `flag` names is the file `input`, which
// writing it would destroy. Before the work.
absl::Status RefuseInput(std::string_view flag,
                         const std::filesystem::path& output,
                         const std::filesystem::path& input);

}  // namespace bullpen
