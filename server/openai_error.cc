#include "server/openai_error.h"

#include <utility>

#include "server/errors.h"
#include "server/openai_json.h"

namespace bullpen {
namespace {

constexpr int kQueueRetrySeconds = 1;
constexpr int kUnavailableRetrySeconds = 5;

ApiError ServerError(int http_status, std::string message, std::string code) {
  return {.http_status = http_status,
          .message = std::move(message),
          .code = std::move(code)};
}

void AppendOptional(std::string& out, const std::optional<std::string>& text) {
  if (text.has_value()) {
    AppendJsonString(out, *text);
  } else {
    out += "null";
  }
}

}  // namespace

ApiError ToApiError(const absl::Status& status) {
  const std::string message(status.message());
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition: {
      ApiError error = RequestError(400, message);
      error.param = ErrorParam(status);
      error.code = ErrorCode(status);
      return error;
    }
    case absl::StatusCode::kNotFound: {
      ApiError error = RequestError(404, message);
      error.param = "model";
      error.code = "model_not_found";
      return error;
    }
    case absl::StatusCode::kResourceExhausted:
      return {.http_status = 429,
              .type = "rate_limit_error",
              .message = message,
              .code = "queue_full",
              .retry_after_seconds = kQueueRetrySeconds};
    case absl::StatusCode::kUnavailable: {
      ApiError error = ServerError(503, message, "service_unavailable");
      error.retry_after_seconds = kUnavailableRetrySeconds;
      return error;
    }
    case absl::StatusCode::kDeadlineExceeded:
      return ServerError(504, message, "deadline_exceeded");
    case absl::StatusCode::kCancelled:
      return ServerError(499, message, "cancelled");
    case absl::StatusCode::kDataLoss: {
      ApiError error = ServerError(
          500, "a part of the model that this request needs cannot be read",
          "data_loss");
      error.retry_is_useless = true;
      return error;
    }
    case absl::StatusCode::kUnimplemented:
      return ServerError(501, message, "unimplemented");
    default:
      return ServerError(500, "the server failed; its log says why",
                         "internal_error");
  }
}

ApiError RequestError(int http_status, std::string message) {
  return {.http_status = http_status,
          .type = http_status == 401 ? "authentication_error"
                                     : "invalid_request_error",
          .message = std::move(message)};
}

std::string ErrorJson(const ApiError& error) {
  std::string out = R"({"error":{"message":)";
  AppendJsonString(out, error.message);
  out += R"(,"type":)";
  AppendJsonString(out, error.type);
  out += R"(,"param":)";
  AppendOptional(out, error.param);
  out += R"(,"code":)";
  AppendOptional(out, error.code);
  out += "}}";
  return out;
}

}  // namespace bullpen
