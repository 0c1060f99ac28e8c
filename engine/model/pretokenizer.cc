#include "engine/model/pretokenizer.h"

#include <functional>
#include <utility>

namespace bullpen {

namespace {

// Whether the word begins within that stretch, of which it may be a view.
bool BeginsIn(std::string_view stretch, std::string_view word) {
  const std::less<const char*> before;
  return !before(word.data(), stretch.data()) &&
         before(word.data(), stretch.data() + stretch.size());
}

}  // namespace

void PreTokenizer::Split(std::string_view text, size_t start_bytes,
                         Scratch& scratch) const {
  scratch.words.assign(1, text);
  for (const Step& step : steps_) {
    if (const auto* pattern = std::get_if<SplitPattern>(&step)) {
      std::swap(scratch.words, scratch.previous);
      scratch.words.clear();
      pattern->Split(scratch.previous, scratch.words);
      continue;
    }
    if (const auto* metaspace = std::get_if<Metaspace>(&step)) {
      Apply(*metaspace, text.substr(0, start_bytes), scratch);
      continue;
    }
    for (std::string_view& word : scratch.words) {
      if (word.starts_with(' ')) continue;
      word = scratch.storage.emplace_back(1, ' ').append(word);
    }
  }
}

void PreTokenizer::Apply(const Metaspace& step, std::string_view start,
                         Scratch& scratch) {
  for (std::string_view& word : scratch.words) {
    std::string& text = scratch.storage.emplace_back();
    const bool prepend =
        step.prepend == Metaspace::Prepend::kAlways ||
        (step.prepend == Metaspace::Prepend::kFirst && BeginsIn(start, word));
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
