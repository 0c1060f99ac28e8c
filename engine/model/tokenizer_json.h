#pragma once

#include "absl/status/statusor.h"
#include "engine/model/tokenizer_parts.h"
#include "nlohmann/json.hpp"

namespace bullpen {

// Reads the document of a tokenizer.json. InvalidArgument names the field that
// is wrong, or the part that is not supported together with those that are.
absl::StatusOr<TokenizerParts> ParseTokenizerJson(const nlohmann::json& root);

}  // namespace bullpen
