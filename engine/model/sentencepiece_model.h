#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/model/tokenizer_parts.h"
#include "nlohmann/json.hpp"

namespace bullpen {

// Largest file that is read. In memory it may take up to 30 times its size: a
// piece of two bytes becomes an object of 60.
inline constexpr int64_t kSentencePieceFileLimit = int64_t{16} << 20;

// Reads a SentencePiece model (tokenizer.model) of type BPE. Its control
// symbols stand in text only where `config` (tokenizer_config.json, or an
// empty object) declares them as added tokens; add_bos_token (true unless
// said) and add_eos_token of it say what surrounds a text.
// InvalidArgument names what is wrong or not supported.
absl::StatusOr<TokenizerParts> ParseSentencePieceModel(
    std::string_view bytes, const nlohmann::json& config);

}  // namespace bullpen
