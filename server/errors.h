#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace bullpen {

// InvalidArgument that names a request field. `code` is the machine-readable
// reason of OpenAI's error object ("context_length_exceeded"), may be empty.
absl::Status FieldError(std::string_view param, std::string_view message,
                        std::string_view code = "");

// What FieldError put in, if anything.
std::optional<std::string> ErrorParam(const absl::Status& status);
std::optional<std::string> ErrorCode(const absl::Status& status);

}  // namespace bullpen
