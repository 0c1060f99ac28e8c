#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "engine/request.h"

namespace bullpen {

// One line for a Generate call that is over, its fields as a JSON object,
// never its text.
void LogGrpcFinished(std::string_view request_id, const Finished& finished);

// One line for a Generate call that the engine never saw.
void LogGrpcRefused(const absl::Status& status);

// One line for a call that is cancelled because its client, `peer`, does not
// read.
void LogGrpcSlowReader(std::string_view peer, double seconds);

}  // namespace bullpen
