#pragma once

#include <string_view>

#include "server/openai_generation.h"

namespace bullpen {

struct HttpLogLine {
  std::string_view request_id;
  std::string_view endpoint;
  int status = 0;  // as sent; an event may have told of an error
  double first_token_seconds = 0;  // since the request was read; 0 = none came
  double total_seconds = 0;
  std::string_view error;  // of the server, else empty
};

// One line for a generation that is over, its fields as a JSON object, never
// its text. `generation` is null if it was refused.
void LogHttpRequest(const HttpLogLine& line, const Generation* generation);

}  // namespace bullpen
