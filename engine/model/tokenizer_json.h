#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/added_tokens.h"
#include "engine/model/bpe.h"
#include "engine/model/normalizer.h"
#include "engine/model/pretokenizer.h"
#include "engine/model/token_table.h"
#include "nlohmann/json.hpp"

namespace bullpen {

// What a tokenizer is made of, whatever file it came from.
struct TokenizerParts {
  BpeParts bpe;
  std::vector<AddedToken> added;
  Normalizer normalizer;
  PreTokenizer pretokenizer;
  DecodeSteps decode;
  std::vector<int32_t> prefix;  // ids that the post-processor puts before ...
  std::vector<int32_t> suffix;  // ... and after the text
};

// Reads the document of a tokenizer.json. InvalidArgument names the field that
// is wrong, or the part that is not supported together with those that are.
absl::StatusOr<TokenizerParts> ParseTokenizerJson(const nlohmann::json& root);

}  // namespace bullpen
