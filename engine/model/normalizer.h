#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace bullpen {

// What a tokenizer does to text before it splits it: Unicode normal forms,
// literal replacement, a prefix. Immutable; linear in the text.
class Normalizer {
 public:
  enum class Form { kNfc, kNfd, kNfkc, kNfkd };
  struct Replace {
    std::string pattern;  // not empty
    std::string content;
  };
  struct Prepend {
    std::string text;
  };
  struct SingleSpaces {};  // runs of spaces become one, at the ends none
  using Step = std::variant<Form, Replace, Prepend, SingleSpaces>;

  void Add(Step step) { steps_.push_back(std::move(step)); }

  // `text` is valid UTF-8. The result is `text` itself where nothing changes,
  // else a view of `storage`.
  std::string_view Apply(std::string_view text, std::string& storage) const;

 private:
  std::vector<Step> steps_;
};

}  // namespace bullpen
