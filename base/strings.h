#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace bullpen {

// Debian's absl::string_view is not std::string_view; StrCat wants its own.
inline absl::string_view Absl(std::string_view s) {
  return absl::string_view(s.data(), s.size());
}
inline std::string_view Std(absl::string_view s) {
  return std::string_view(s.data(), s.size());
}

// "12GiB", "512MiB", "1.5GB", "4096" (bytes). InvalidArgument names the text.
absl::StatusOr<int64_t> ParseBytes(std::string_view text);

// 1234567 -> "1.18 MiB".
std::string FormatBytes(int64_t bytes);

// True if `text` is well-formed UTF-8 (no surrogates, no overlong forms).
bool IsValidUtf8(std::string_view text);

}  // namespace bullpen
