#include "server/text_stream.h"

#include <algorithm>
#include <utility>

namespace bullpen {

TextStream::TextStream(const Tokenizer& tokenizer,
                       std::vector<std::string> stop)
    : decoder_(tokenizer, /*skip_special=*/true) {
  for (std::string& text : stop) {
    if (!text.empty()) stops_.push_back(MakeStop(std::move(text)));
  }
}

TextStream::Stop TextStream::MakeStop(std::string text) {
  Stop stop{.text = std::move(text), .fallback = {}};
  stop.fallback.assign(stop.text.size(), 0);
  size_t border = 0;
  for (size_t i = 1; i < stop.text.size(); ++i) {
    stop.fallback[i] = border;
    while (border > 0 && stop.text[i] != stop.text[border]) {
      border = stop.fallback[border];
    }
    if (stop.text[i] == stop.text[border]) ++border;
  }
  return stop;
}

void TextStream::Advance(Stop& stop, char c) {
  while (stop.matched > 0 && stop.text[stop.matched] != c) {
    stop.matched = stop.fallback[stop.matched];
  }
  if (stop.text[stop.matched] == c) ++stop.matched;
}

std::string TextStream::Push(int32_t id) {
  return stopped_ ? "" : Take(decoder_.Push(id));
}

std::string TextStream::Flush() {
  if (stopped_) return "";
  std::string out = Take(decoder_.Flush());
  return out.append(std::exchange(held_, ""));
}

std::string TextStream::Take(std::string_view text) {
  size_t partial = 0;  // the longest start of a stop string at the end
  for (char c : text) {
    held_.push_back(c);
    partial = 0;
    size_t complete = 0;
    for (Stop& stop : stops_) {
      Advance(stop, c);
      partial = std::max(partial, stop.matched);
      if (stop.matched == stop.text.size()) {
        complete = std::max(complete, stop.matched);
      }
    }
    if (complete == 0) continue;
    stopped_ = true;
    held_.resize(held_.size() - complete);
    return std::exchange(held_, "");
  }
  if (text.empty()) return "";
  std::string out = held_.substr(0, held_.size() - partial);
  held_.erase(0, out.size());
  return out;
}

}  // namespace bullpen
