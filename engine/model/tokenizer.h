#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bullpen {

class TokenTable;
struct TokenizerParts;

// Text to token ids and back, as a model's tokenizer.json says, or a
// SentencePiece tokenizer.model where there is no tokenizer.json.
// Immutable after creation: any thread may call it.
class Tokenizer {
 public:
  // NotFound: neither file. ResourceExhausted: a file over the limit (256 MiB,
  // 16 MiB for tokenizer.model). InvalidArgument: a part that is not
  // supported, named, with the list of those that are.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromDirectory(
      const std::filesystem::path& dir);
  // InvalidArgument: parts that contradict each other.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromParts(
      TokenizerParts parts);
  ~Tokenizer();

  // `text` is valid UTF-8 (the caller has checked). Special tokens written in
  // the text are recognised. add_special: what the post-processor adds (BOS).
  std::vector<int32_t> Encode(std::string_view text, bool add_special) const;

  // Bytes that are not valid UTF-8 become U+FFFD, as in `tokenizers`.
  // Ids out of range give nothing.
  std::string Decode(std::span<const int32_t> ids, bool skip_special) const;

  // The bytes of one token as they stand in text ("" for an unknown id).
  std::string TokenBytes(int32_t id) const;
  bool IsSpecial(int32_t id) const;
  std::optional<int32_t> IdOf(std::string_view token) const;
  int32_t vocab_size() const;  // highest id + 1

 private:
  friend class DecodeStream;
  struct Data;
  explicit Tokenizer(std::unique_ptr<Data> data);
  std::unique_ptr<Data> data_;
};

// Decodes a growing sequence; never gives half a character. One per request.
// The tokenizer must outlive it.
class DecodeStream {
 public:
  DecodeStream(const Tokenizer& tokenizer, bool skip_special);
  // What `id` adds to the text; "" while a character is incomplete.
  std::string Push(int32_t id);
  // The incomplete rest as U+FFFD.
  std::string Flush();

 private:
  std::string TakePending(size_t keep);
  std::string Start(std::string text);

  const TokenTable& table_;
  bool skip_special_;
  std::string pending_;   // ends in an incomplete character
  int32_t strip_left_;    // how often the start may still be stripped
  bool first_ = true;     // no token has come
  bool at_start_ = true;  // no text has been given
};

}  // namespace bullpen
