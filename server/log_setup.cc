#include "server/log_setup.h"

#include <memory>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "spdlog/pattern_formatter.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

// Writes "message":"...", and the fields of a trailing JSON object.
class JsonMessage final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& out) override {
    std::string_view text(message.payload.data(), message.payload.size());
    nlohmann::json line = nlohmann::json::object();
    const size_t brace = text.find(" {");
    if (brace != std::string_view::npos && text.back() == '}') {
      nlohmann::json fields =
          nlohmann::json::parse(text.substr(brace + 1), nullptr, false);
      if (fields.is_object()) {
        line = std::move(fields);
        text = text.substr(0, brace);
      }
    }
    line["message"] = text;
    const std::string json =
        line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    out.append(json.data() + 1, json.data() + json.size() - 1);
  }
  std::unique_ptr<spdlog::custom_flag_formatter> clone() const override {
    return std::make_unique<JsonMessage>();
  }
};

}  // namespace

absl::Status SetUpLog(const std::string& level, const std::string& format) {
  const spdlog::level::level_enum parsed = spdlog::level::from_str(level);
  if (parsed == spdlog::level::off && level != "off") {
    return absl::InvalidArgumentError(
        absl::StrCat("--log-level: '", level,
                     "' is not one of trace, debug, info, warn, error, off"));
  }
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  if (format == "json") {
    formatter->add_flag<JsonMessage>('*').set_pattern(
        R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%*})");
  } else if (format == "text") {
    formatter->set_pattern("%Y-%m-%d %H:%M:%S.%e %l %v");
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("--log-format: '", format, "' is not one of text, json"));
  }
  spdlog::set_default_logger(spdlog::stderr_logger_mt("bullpen"));
  spdlog::set_formatter(std::move(formatter));
  spdlog::set_level(parsed);
  return absl::OkStatus();
}

}  // namespace bullpen
