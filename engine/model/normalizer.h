#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/model/chars_map.h"
#include "engine/model/split_pattern.h"

namespace bullpen {

// What a tokenizer does to text before it splits it: the steps that
// tokenizer.json names, in order. Immutable; linear in the text, but for
// replacements by an expression that is not.
class Normalizer {
 public:
  enum class Form { kNfc, kNfd, kNfkc, kNfkd };
  struct Replace {
    std::string pattern;  // not empty
    std::string content;
  };
  struct ReplaceMatches {
    SplitPattern pattern;
    std::string content;
  };
  struct Prepend {
    std::string text;
  };
  struct Strip {  // white space at the ends
    bool left = true;
    bool right = true;
  };
  struct TrimEnd {  // as often as it stands there
    std::string text;
  };
  struct SingleSpaces {};  // runs of spaces become one, at the ends none
  struct Lowercase {};
  struct StripAccents {};  // marks go
  struct SpellBytes {};    // each byte as its character of ByteAlphabet
  using Step =
      std::variant<Form, CharsMap, Replace, ReplaceMatches, Prepend, Strip,
                   TrimEnd, SingleSpaces, Lowercase, StripAccents, SpellBytes>;

  void Add(Step step);

  // `text` is valid UTF-8. The result is `text` itself where nothing changes,
  // else a view of `storage`.
  std::string_view Apply(std::string_view text, std::string& storage) const;

  // How many bytes of the result its first character has become; `text` is not
  // empty. Approximate where a step looks at several characters.
  size_t BytesOfFirst(std::string_view text) const;

 private:
  std::vector<Step> steps_;
};

}  // namespace bullpen
