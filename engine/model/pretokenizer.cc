#include "engine/model/pretokenizer.h"

#include <utility>

namespace bullpen {

void PreTokenizer::Split(std::string_view text, Scratch& scratch) const {
  scratch.storage.clear();
  scratch.words.assign(1, text);
  for (const Step& step : steps_) {
    if (const auto* pattern = std::get_if<SplitPattern>(&step)) {
      std::swap(scratch.words, scratch.previous);
      scratch.words.clear();
      pattern->Split(scratch.previous, scratch.words);
      continue;
    }
    for (std::string_view& word : scratch.words) {
      if (word.starts_with(' ')) continue;
      word = scratch.storage.emplace_back(1, ' ').append(word);
    }
  }
}

}  // namespace bullpen
