#include "server/http_log.h"

#include "nlohmann/json.hpp"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

constexpr double kMsPerSecond = 1000;

}  // namespace

void LogHttpRequest(const HttpLogLine& line, const Generation* generation) {
  nlohmann::json fields = {
      {"id", line.request_id},
      {"protocol", "http"},
      {"endpoint", line.endpoint},
      {"status", line.status},
      {"total_ms", line.total_seconds * kMsPerSecond},
  };
  if (generation == nullptr) {
    fields["reason"] = "refused";
  } else {
    const Usage usage = generation->usage();
    fields["reason"] = generation->finish_reason();
    fields["prompt_tokens"] = usage.prompt_tokens;
    fields["completion_tokens"] = usage.completion_tokens;
    fields["queue_ms"] = generation->timings().queue_seconds * kMsPerSecond;
    fields["first_token_ms"] = line.first_token_seconds * kMsPerSecond;
  }
  if (!line.error.empty()) fields["error"] = line.error;
  const std::string text =
      fields.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (line.error.empty()) {
    spdlog::info("request finished {}", text);
  } else {
    spdlog::warn("request finished {}", text);
  }
}

}  // namespace bullpen
