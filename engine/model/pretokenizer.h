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
  // Spaces become `replacement`; pieces may get one in front and are cut
  // before each.
  struct Metaspace {
    enum class Prepend { kAlways, kFirst, kNever };
    std::string replacement = "\u2581";
    Prepend prepend = Prepend::kAlways;  // kFirst: in the text's start
    bool split = true;
  };
  using Step = std::variant<SplitPattern, PrefixSpace, Metaspace>;

  // What calls of Split work with. Words are views of the text or of storage,
  // which only grows: those of earlier calls stay valid.
  struct Scratch {
    std::vector<std::string_view> words;
    std::vector<std::string_view> previous;
    std::deque<std::string> storage;
  };

  void Add(Step step) { steps_.push_back(std::move(step)); }

  // Fills scratch.words with the words of `text` (valid UTF-8, not empty).
  // start_bytes: so many of it stem from the first character of the whole text.
  void Split(std::string_view text, size_t start_bytes, Scratch& scratch) const;

 private:
  static void Apply(const Metaspace& step, std::string_view start,
                    Scratch& scratch);

  std::vector<Step> steps_;
};

}  // namespace bullpen
