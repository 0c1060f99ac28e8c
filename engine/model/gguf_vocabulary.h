#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace bullpen {

// What the metadata of a GGUF file say of its tokenizer; each field names its
// key. The reader of the file fills it and checks nothing but types.
struct GgufVocabulary {
  std::string model;                // tokenizer.ggml.model: gpt2 or llama
  std::string pre;                  // .pre: the split patterns of gpt2
  std::vector<std::string> tokens;  // .tokens, by id
  std::vector<float> scores;        // .scores (llama)
  std::vector<int32_t> types;       // .token_type; empty: all are normal
  std::vector<std::string> merges;  // .merges (gpt2): "left right", by rank
  std::optional<int64_t> bos;       // .bos_token_id
  std::optional<int64_t> eos;       // .eos_token_id
  std::optional<int64_t> unknown;   // .unknown_token_id
  std::optional<int64_t> padding;   // .padding_token_id
  std::optional<bool> add_bos;      // .add_bos_token
  std::optional<bool> add_eos;      // .add_eos_token
  std::optional<bool> add_space_prefix;          // .add_space_prefix
  std::optional<bool> remove_extra_whitespaces;  // .remove_extra_whitespaces
  std::string chat_template;                     // tokenizer.chat_template
};

// A file of a model directory.
struct DescriptionFile {
  std::string name;
  std::string bytes;
};

// The vocabulary in the files that other releases of the same model have, for
// the packed model: tokenizer.json (gpt2) or tokenizer.model (llama), and
// tokenizer_config.json with the chat template and the special tokens.
// Tokenizer and ChatTemplate read them as any others. InvalidArgument names
// the key that is wrong; an unknown kind or pattern, with those supported.
absl::StatusOr<std::vector<DescriptionFile>> GgufTokenizerFiles(
    const GgufVocabulary& vocabulary);

}  // namespace bullpen
