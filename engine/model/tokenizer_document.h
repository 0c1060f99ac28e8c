#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace bullpen {

// A tokenizer.json. The two lists that make up nearly all of it are read
// straight into what they become; as JSON values they would take twenty times
// their size, and most of the time of loading.
struct TokenizerDocument {
  nlohmann::json root;  // without model.vocab and model.merges, where ...
  bool has_vocabulary = false;  // ... they have the right type
  bool has_merges = false;
  std::vector<std::pair<std::string, int32_t>> vocabulary;
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
};

// InvalidArgument: not JSON, or the entry of one of the lists that is wrong.
absl::StatusOr<TokenizerDocument> ReadTokenizerDocument(std::string_view bytes);

}  // namespace bullpen
