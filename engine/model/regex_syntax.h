#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace bullpen {

// An expression in Oniguruma's Ruby syntax, rewritten so that PCRE2 (UTF, UCP,
// MULTILINE, newline LF) matches the same text. InvalidArgument names the
// construct that has no translation.
absl::StatusOr<std::string> TranslateRegex(std::string_view expression);

}  // namespace bullpen
