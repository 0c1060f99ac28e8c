#pragma once

#include <string_view>

#include "engine/request.h"

namespace bullpen {

// "stop", "length", "cancelled", "deadline" or "error".
std::string_view FinishedReason(const Finished& finished);

// Logs one line for a finished request, its fields as a JSON object, never its
// text. `protocol` is "http" or "grpc".
void LogFinished(std::string_view protocol, std::string_view request_id,
                 const Finished& finished);

}  // namespace bullpen
