#include "server/grpc_log.h"

#include <string>

#include "nlohmann/json.hpp"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

constexpr double kMsPerSecond = 1000;

std::string_view Reason(const Finished& finished) {
  if (absl::IsCancelled(finished.status)) return "cancelled";
  if (absl::IsDeadlineExceeded(finished.status)) return "deadline";
  if (!finished.status.ok()) return "error";
  return finished.reason == FinishReason::kLength ? "length" : "stop";
}

// Replaces what is not UTF-8, so that the line is valid whatever came in.
std::string Dump(const nlohmann::json& fields) {
  return fields.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

void LogGrpcFinished(std::string_view request_id, const Finished& finished) {
  const std::string_view reason = Reason(finished);
  nlohmann::json fields = {
      {"id", request_id},
      {"protocol", "grpc"},
      {"reason", reason},
      {"prompt_tokens", finished.prompt_tokens},
      {"completion_tokens", finished.completion_tokens},
      {"queue_ms", finished.queue_seconds * kMsPerSecond},
      {"first_token_ms", finished.first_token_seconds * kMsPerSecond},
      {"total_ms", finished.total_seconds * kMsPerSecond}};
  if (reason == "error") {
    fields["error"] = finished.status.ToString();
    spdlog::warn("request finished {}", Dump(fields));
  } else {
    spdlog::info("request finished {}", Dump(fields));
  }
}

void LogGrpcRefused(const absl::Status& status) {
  const nlohmann::json fields = {
      {"protocol", "grpc"},
      {"reason", "refused"},
      {"status", absl::StatusCodeToString(status.code())}};
  spdlog::info("request finished {}", Dump(fields));
}

void LogGrpcSlowReader(std::string_view peer, double seconds) {
  spdlog::warn("call cancelled {}", Dump({{"protocol", "grpc"},
                                          {"peer", peer},
                                          {"not_read_for_s", seconds}}));
}

}  // namespace bullpen
