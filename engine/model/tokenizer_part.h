#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/model/json_fields.h"

namespace bullpen {

// What the readers of the parts of tokenizer.json share.

// Sequences within sequences; more is an attempt on the stack.
inline constexpr int kMaxPartDepth = 8;

// The error for a part of a type that is not known.
absl::Status UnsupportedPart(const JsonFields& part, std::string_view type,
                             std::string_view supported);

// {"String": "..."} or {"Regex": "..."}, not empty.
struct PartPattern {
  std::string text;
  bool is_regex = false;
};
absl::StatusOr<PartPattern> ParsePartPattern(const JsonFields& part);

}  // namespace bullpen
