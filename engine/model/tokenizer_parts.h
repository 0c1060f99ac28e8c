#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/added_tokens.h"
#include "engine/model/bpe.h"
#include "engine/model/normalizer.h"
#include "engine/model/pretokenizer.h"
#include "engine/model/token_table.h"

namespace bullpen {

// What a tokenizer is made of, whatever file it came from.
struct TokenizerParts {
  BpeParts bpe;
  std::vector<AddedToken> added;
  Normalizer normalizer;
  PreTokenizer pretokenizer;
  DecodeSteps decode;
  std::vector<int32_t> special;  // of the vocabulary, besides the added ones
  // Ids whose text is not what the vocabulary calls them.
  std::vector<std::pair<int32_t, std::string>> spellings;
  std::vector<int32_t> prefix;  // ids that the post-processor puts before ...
  std::vector<int32_t> suffix;  // ... and after the text
};

}  // namespace bullpen
