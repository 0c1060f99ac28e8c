#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/model/tokenizer_parts.h"

namespace bullpen {

// Builds a tokenizer of what a parser gave, if it gave something, and lets it
// encode, decode and stream some text and a part of `bytes`.
void UseTokenizer(absl::StatusOr<TokenizerParts> parts, std::string_view bytes);

}  // namespace bullpen
