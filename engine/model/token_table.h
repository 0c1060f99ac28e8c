#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace bullpen {

// How tokens become text again, as the decoder of tokenizer.json says.
struct DecodeSteps {
  bool byte_level = false;     // tokens are spelled in ByteAlphabet
  bool byte_fallback = false;  // tokens named <0xHH> are bytes
  // Of a broken run of such bytes the whole characters stay; else none does.
  bool bytes_stand_alone = false;
  std::vector<std::pair<std::string, std::string>> replace;  // in each token
  // What goes from the first token: wherever it stands, once where the token
  // begins, or as often as it stands there (if nothing is left, from the next
  // token too).
  enum class Removal { kEverywhere, kOnce, kLeading };
  std::string removed_in_first;
  Removal removal = Removal::kEverywhere;
  std::string separator;    // between tokens
  std::string strip;        // taken from the start of the text ...
  int32_t strip_count = 0;  // ... up to so many times
};

// The text of every token. Immutable after the last change: any thread may use
// it.
class TokenTable {
 public:
  // Ids are in [0, size).
  TokenTable(DecodeSteps steps, int32_t size);

  void Set(int32_t id, std::string_view spelling, bool special);

  void MarkSpecial(int32_t id);

  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
  bool Contains(int32_t id) const;
  bool IsSpecial(int32_t id) const;
  // One byte of a character that byte fallback has spelled out.
  bool IsByte(int32_t id) const;
  // "" for an unknown id.
  std::string_view Bytes(int32_t id) const;
  // The same for the first token of a text, after which `first` says whether
  // the next one counts as first too.
  std::string_view FirstBytes(int32_t id, bool& first) const;
  const DecodeSteps& steps() const { return steps_; }

  // Unknown ids give nothing; broken characters become U+FFFD.
  std::string Decode(std::span<const int32_t> ids, bool skip_special) const;

  // Appends a run of bytes: one U+FFFD for each maximal invalid subpart, or,
  // with byte fallback, for each byte of a run that is not valid as a whole
  // (each byte that belongs to no character if bytes_stand_alone).
  void AppendBytes(std::string_view bytes, std::string& out) const;

 private:
  void SetFirstForm(int32_t id, std::string_view spelling);

  struct Token {
    std::string bytes;
    bool known = false;
    bool special = false;
    bool is_byte = false;
  };

  DecodeSteps steps_;
  std::vector<Token> tokens_;
  absl::flat_hash_map<int32_t, std::string> first_forms_;  // where it differs
};

}  // namespace bullpen
