#include "server/request_log.h"

#include <string>

#include "nlohmann/json.hpp"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

// A request id may come from the client: replacement keeps the line valid.
std::string Dump(const nlohmann::json& fields) {
  return fields.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::string_view FinishedReason(const Finished& finished) {
  if (absl::IsCancelled(finished.status)) return "cancelled";
  if (absl::IsDeadlineExceeded(finished.status)) return "deadline";
  switch (finished.reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kError:
      return "error";
  }
  return "error";
}

void LogFinished(std::string_view protocol, std::string_view request_id,
                 const Finished& finished) {
  const std::string_view reason = FinishedReason(finished);
  nlohmann::json fields = {
      {"id", request_id},
      {"protocol", protocol},
      {"reason", reason},
      {"prompt_tokens", finished.prompt_tokens},
      {"completion_tokens", finished.completion_tokens},
      {"queue_seconds", finished.queue_seconds},
      {"first_token_seconds", finished.first_token_seconds},
      {"total_seconds", finished.total_seconds}};
  if (reason == "error") {
    fields["error"] = finished.status.ToString();
    spdlog::warn("request finished {}", Dump(fields));
  } else {
    spdlog::info("request finished {}", Dump(fields));
  }
}

}  // namespace bullpen
