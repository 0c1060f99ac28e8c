#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/model/tokenizer_parts.h"

namespace bullpen {

// Reads a tokenizer.json. InvalidArgument names the field that is wrong, or the
// part that is not supported together with those that are. Memory: at most 40
// times the file, an entry of six bytes becoming a string, an id and a merge.
absl::StatusOr<TokenizerParts> ParseTokenizerJson(std::string_view bytes);

}  // namespace bullpen
