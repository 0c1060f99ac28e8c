#include "server/errors.h"

#include "absl/strings/cord.h"
#include "base/strings.h"

namespace bullpen {
namespace {

constexpr char kParamUrl[] = "bullpen/param";
constexpr char kCodeUrl[] = "bullpen/code";

std::optional<std::string> Payload(const absl::Status& status,
                                   const char* url) {
  const absl::optional<absl::Cord> payload = status.GetPayload(url);
  if (!payload.has_value()) return std::nullopt;
  return std::string(*payload);
}

}  // namespace

absl::Status FieldError(std::string_view param, std::string_view message,
                        std::string_view code) {
  absl::Status status = absl::InvalidArgumentError(Absl(message));
  status.SetPayload(kParamUrl, absl::Cord(Absl(param)));
  if (!code.empty()) status.SetPayload(kCodeUrl, absl::Cord(Absl(code)));
  return status;
}

std::optional<std::string> ErrorParam(const absl::Status& status) {
  return Payload(status, kParamUrl);
}

std::optional<std::string> ErrorCode(const absl::Status& status) {
  return Payload(status, kCodeUrl);
}

}  // namespace bullpen
