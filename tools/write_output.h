#pragma once

#include <filesystem>
#include <string_view>

#include "absl/status/status.h"

namespace bullpen {

// A result for people: made, or written over what is there.
absl::Status WriteOutput(const std::filesystem::path& path,
                         std::string_view text);

}  // namespace bullpen
