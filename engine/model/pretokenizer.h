#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/model/split_pattern.h"

namespace bullpen {

// Cuts normalised text into the words that the model merges one by one.
// Immutable: any thread may use it.
class PreTokenizer {
 public:
  struct PrefixSpace {};  // a space before a piece that does not start with one
  using Step = std::variant<SplitPattern, PrefixSpace>;

  // What one call of Split owns; its words may be views of it.
  struct Scratch {
    std::vector<std::string_view> words;
    std::vector<std::string_view> previous;
    std::deque<std::string> storage;
  };

  void Add(Step step) { steps_.push_back(std::move(step)); }

  // Fills scratch.words with the words of `text` (valid UTF-8, not empty).
  void Split(std::string_view text, Scratch& scratch) const;

 private:
  std::vector<Step> steps_;
};

}  // namespace bullpen
