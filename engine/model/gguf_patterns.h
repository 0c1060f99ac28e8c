#pragma once

#include <span>
#include <string_view>

#include "absl/status/statusor.h"

namespace bullpen {

// What a name in tokenizer.ggml.pre stands for. GGUF files carry the name
// only; the expressions are those of the models' own tokenizer.json files.
struct GgufPatterns {
  std::span<const std::string_view> splits;  // one after the other
  bool ignore_merges = false;
  bool add_bos = false;  // where the file does not say
  bool nfc = false;      // the text is normalised first
};

// InvalidArgument: an unknown name, with those that are known.
absl::StatusOr<GgufPatterns> FindGgufPatterns(std::string_view pre);

}  // namespace bullpen
