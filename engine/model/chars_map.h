#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bullpen {

// The normalisation table of a SentencePiece model (precompiled_charsmap):
// rewrites the longest prefix that it knows, again and again. A file of
// strangers: every index is checked where it is used.
class CharsMap {
 public:
  // `bytes` holds the size of a double-array trie (as darts-clone builds it),
  // the trie, and texts that end in zeros, which the trie's values point to.
  static absl::StatusOr<CharsMap> Parse(std::string_view bytes);

  // `text` is valid UTF-8. Linear: keys have a bounded length.
  std::string Apply(std::string_view text) const;

 private:
  CharsMap() = default;
  // How many bytes at the start of `text` have an entry, 0 if none; `to` is
  // what they become.
  size_t LongestPrefix(std::string_view text, std::string_view& to) const;

  std::vector<uint32_t> units_;
  std::string texts_;
};

}  // namespace bullpen
