#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace bullpen::bench {

// Reads one HTTP/1.1 response with an event stream in a chunked body, as its
// bytes come. Built to cost little for each token: it looks for line ends and
// a few words, and parses no JSON.
class EventParser {
 public:
  // Takes bytes; returns how many events with text were completed by them. An
  // error: a status other than 200, an error event, or broken framing.
  absl::StatusOr<int> Feed(std::string_view bytes);

  bool done() const { return state_ == State::kDone; }
  // What the usage event said; 0 before it.
  int64_t completion_tokens() const { return completion_tokens_; }

 private:
  enum class State { kHead, kChunkSize, kChunk, kChunkEnd, kTrailer, kDone };

  absl::Status TakeLine(std::string_view line);
  absl::Status TakeHead(std::string_view line);
  absl::Status TakeEventLine(std::string_view line);
  absl::Status TakeChunk(std::string_view bytes);

  State state_ = State::kHead;
  bool first_line_ = true;
  int64_t chunk_left_ = 0;
  std::string line_;   // of the framing, incomplete
  std::string event_;  // line of the body, incomplete
  int64_t completion_tokens_ = 0;
  int events_ = 0;
};

}  // namespace bullpen::bench
