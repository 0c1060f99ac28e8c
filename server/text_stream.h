#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/tokenizer.h"

namespace bullpen {

// Token ids to text for one request: whole characters only, stop strings never
// given out. Text that could be the start of a stop string is held back.
//
// The stop string that is complete first wins, of those that end together the
// longest: what is given does not depend on how tokens cut the text.
class TextStream {
 public:
  // Empty stop strings are ignored.
  TextStream(const Tokenizer& tokenizer, std::vector<std::string> stop);

  // What `id` adds. After stopped() it is always empty.
  std::string Push(int32_t id);
  // The end: what was held back.
  std::string Flush();
  // A stop string was found; the text before it has been given.
  bool stopped() const { return stopped_; }

 private:
  // One stop string, matched byte by byte (Knuth, Morris, Pratt).
  struct Stop {
    std::string text;
    std::vector<size_t> fallback;  // by matched length: the next to try
    size_t matched = 0;            // bytes of `text` at the end of the output
  };

  static Stop MakeStop(std::string text);
  static void Advance(Stop& stop, char c);
  std::string Take(std::string_view text);

  DecodeStream decoder_;
  std::vector<Stop> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace bullpen
