#pragma once

#include "absl/status/status.h"
#include "engine/model/tokenizer_parts.h"
#include "nlohmann/json.hpp"

namespace bullpen {

// Reads the "pre_tokenizer" of a tokenizer.json: its steps, and whether the
// model works on bytes. InvalidArgument names the field that is wrong, or the
// type that is not supported with those that are.
absl::Status ParsePreTokenizer(const nlohmann::json& node, TokenizerParts& out);

}  // namespace bullpen
