#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"

namespace bullpen {

// An error as OpenAI's clients read it: an HTTP status and an object
// {message, type, param, code}.
struct ApiError {
  int http_status = 500;
  std::string type = "server_error";
  std::string message = {};
  std::optional<std::string> param = {};
  std::optional<std::string> code = {};
  std::optional<int> retry_after_seconds = {};
  bool retry_is_useless = false;  // the same request would fail again
};

// The one mapping from status codes to HTTP. Messages of the server's own
// faults are replaced by general ones: they may name files.
ApiError ToApiError(const absl::Status& status);

// A refusal by the HTTP layer itself.
ApiError RequestError(int http_status, std::string message);

// {"error":{...}}, without a newline.
std::string ErrorJson(const ApiError& error);

}  // namespace bullpen
