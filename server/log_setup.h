#pragma once

#include <string>

#include "absl/status/status.h"

namespace bullpen {

// Sends the log to standard error: text for people, or with format "json" one
// JSON object a line. A JSON object at the end of a message becomes fields of
// its line. InvalidArgument names a level or format that is not known.
absl::Status SetUpLog(const std::string& level, const std::string& format);

}  // namespace bullpen
