#pragma once

#include <filesystem>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

namespace bullpen {

// A document that says which bench it is of and on which machine it ran.
nlohmann::ordered_json NewReport(const char* bench);

// Writes it to `path`, replacing what is there; nothing if `path` is empty.
absl::Status WriteReport(const nlohmann::ordered_json& report,
                         const std::filesystem::path& path);

}  // namespace bullpen
