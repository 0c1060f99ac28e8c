#include "engine/model/pretokenizer.h"

#include <utility>

namespace bullpen {

void PreTokenizer::Split(std::string_view text, bool at_start,
                         Scratch& scratch) const {
  scratch.words.assign(1, text);
  for (const Step& step : steps_) {
    if (const auto* pattern = std::get_if<SplitPattern>(&step)) {
      std::swap(scratch.words, scratch.previous);
      scratch.words.clear();
      pattern->Split(scratch.previous, scratch.words);
      // A cut that removes the beginning takes the start of the text along.
      at_start = at_start && !scratch.words.empty() &&
                 scratch.words.front().data() == text.data();
      continue;
    }
    if (const auto* metaspace = std::get_if<Metaspace>(&step)) {
      Apply(*metaspace, at_start, scratch);
      continue;
    }
    for (std::string_view& word : scratch.words) {
      if (word.starts_with(' ')) continue;
      word = scratch.storage.emplace_back(1, ' ').append(word);
    }
  }
}

void PreTokenizer::Apply(const Metaspace& step, bool at_start,
                         Scratch& scratch) {
  for (std::string_view& word : scratch.words) {
    std::string& text = scratch.storage.emplace_back();
    const bool prepend = step.prepend == Metaspace::Prepend::kAlways ||
                         (step.prepend == Metaspace::Prepend::kFirst &&
                          std::exchange(at_start, false));
    if (prepend && !word.starts_with(' ') &&
        !word.starts_with(step.replacement)) {
      text.append(step.replacement);
    }
    for (char c : word) {
      if (c == ' ') {
        text.append(step.replacement);
      } else {
        text.push_back(c);
      }
    }
    word = text;
  }
  if (!step.split) return;
  std::swap(scratch.words, scratch.previous);
  scratch.words.clear();
  SplitPattern::Literal(step.replacement,
                        {.behavior = SplitBehavior::kMergedWithNext})
      .Split(scratch.previous, scratch.words);
}

}  // namespace bullpen
