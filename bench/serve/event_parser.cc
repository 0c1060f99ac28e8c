#include "bench/serve/event_parser.h"

#include <algorithm>
#include <charconv>

#include "base/status.h"
#include "base/strings.h"

namespace bullpen::bench {
namespace {

std::string_view Trimmed(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

}  // namespace

absl::StatusOr<int> EventParser::Feed(std::string_view bytes) {
  events_ = 0;
  while (!bytes.empty() && state_ != State::kDone) {
    if (state_ == State::kChunk) {
      const std::string_view part =
          bytes.substr(0, static_cast<size_t>(chunk_left_));
      RETURN_IF_ERROR(TakeChunk(part));
      chunk_left_ -= static_cast<int64_t>(part.size());
      bytes.remove_prefix(part.size());
      if (chunk_left_ == 0) state_ = State::kChunkEnd;
      continue;
    }
    const size_t end = bytes.find('\n');
    line_.append(bytes.substr(0, end));
    if (end == std::string_view::npos) break;
    bytes.remove_prefix(end + 1);
    const std::string line(Trimmed(line_));
    line_.clear();
    RETURN_IF_ERROR(TakeLine(line));
  }
  return events_;
}

absl::Status EventParser::TakeLine(std::string_view line) {
  switch (state_) {
    case State::kHead:
      return TakeHead(line);
    case State::kChunkSize: {
      const auto [end, error] =
          std::from_chars(line.data(), line.data() + line.size(), chunk_left_,
                          /*base=*/16);
      if (error != std::errc() || chunk_left_ < 0) {
        return absl::DataLossError(
            absl::StrCat("no chunk size: '", Absl(line), "'"));
      }
      state_ = chunk_left_ > 0 ? State::kChunk : State::kTrailer;
      return absl::OkStatus();
    }
    case State::kChunkEnd:
      state_ = State::kChunkSize;
      return absl::OkStatus();
    case State::kTrailer:
      if (line.empty()) state_ = State::kDone;
      return absl::OkStatus();
    case State::kChunk:
    case State::kDone:
      break;
  }
  return absl::InternalError("a line outside the framing");
}

absl::Status EventParser::TakeHead(std::string_view line) {
  if (first_line_ && line.substr(0, 12) != "HTTP/1.1 200") {
    return absl::UnavailableError(
        absl::StrCat("the server answered '", Absl(line), "'"));
  }
  first_line_ = false;
  if (line.empty()) state_ = State::kChunkSize;
  return absl::OkStatus();
}

absl::Status EventParser::TakeChunk(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    event_.append(bytes.substr(0, end));
    if (end == std::string_view::npos) return absl::OkStatus();
    bytes.remove_prefix(end + 1);
    RETURN_IF_ERROR(TakeEventLine(Trimmed(event_)));
    event_.clear();
  }
  return absl::OkStatus();
}

absl::Status EventParser::TakeEventLine(std::string_view line) {
  constexpr std::string_view kCount = "\"completion_tokens\":";
  if (!line.starts_with("data:")) return absl::OkStatus();
  if (line.find("{\"error\"") != std::string_view::npos) {
    return absl::UnavailableError(absl::StrCat("error event: ", Absl(line)));
  }
  const size_t count = line.find(kCount);
  if (count != std::string_view::npos) {
    const char* first = line.data() + count + kCount.size();
    std::from_chars(first, line.data() + line.size(), completion_tokens_);
  } else if (line.find("\"text\":") != std::string_view::npos) {
    ++events_;
  }
  return absl::OkStatus();
}

}  // namespace bullpen::bench
