#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model/tokenizer.h"

namespace bullpen {

// Token ids to text for one request: whole characters only, stop strings never
// given out. Text that could be the start of a stop string is held back.
class TextStream {
 public:
  TextStream(const Tokenizer& tokenizer, std::vector<std::string> stop);

  // What `id` adds. After stopped() it is always empty.
  std::string Push(int32_t id);
  // The end: what was held back.
  std::string Flush();
  // A stop string was found; the text before it has been given.
  bool stopped() const { return stopped_; }

 private:
  std::string Release();

  DecodeStream decoder_;
  std::vector<std::string> stop_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace bullpen
