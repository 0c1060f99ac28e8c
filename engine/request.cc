#include "engine/request.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace bullpen {

absl::Status CheckFits(const Request& request, int32_t longest, int32_t vocab) {
  const int64_t tokens = static_cast<int64_t>(request.prompt.size()) +
                         std::max(request.max_tokens, 0);
  if (request.prompt.empty() || request.max_tokens < 0 || tokens > longest) {
    return absl::InvalidArgumentError(absl::StrCat(
        "prompt of ", request.prompt.size(), " tokens and max_tokens ",
        request.max_tokens, ": need 1 to ", longest, " tokens together"));
  }
  const auto unknown = [vocab](int32_t id) { return id < 0 || id >= vocab; };
  const auto bad = std::ranges::find_if(request.prompt, unknown);
  if (bad != request.prompt.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt token ", *bad, " is not in 0..", vocab - 1));
  }
  for (const auto& [id, bias] : request.sampling.logit_bias) {
    if (unknown(id)) {
      return absl::InvalidArgumentError(
          absl::StrCat("logit_bias token ", id, " is not in 0..", vocab - 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace bullpen
