#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/direct_file.h"
#include "base/huge_buffer.h"
#include "base/read_queue.h"
#include "engine/model/checkpoint.h"

namespace bullpen {

// Bytes of one of a checkpoint's files.
struct SourceRange {
  int32_t file = 0;
  int64_t offset = 0;
  int64_t bytes = 0;

  int64_t end() const { return offset + bytes; }
  friend auto operator<=>(const SourceRange&, const SourceRange&) = default;
};

// Some ranges of a checkpoint's files in memory.
class SourceWindow {
 public:
  // The range's first byte; null if not all of it is here.
  const std::byte* Find(const SourceRange& range) const;

 private:
  friend class ReadAhead;
  struct Held {
    SourceRange range;  // from a multiple of kDirectAlignment on
    int64_t at = 0;     // in memory
  };
  HugeBuffer memory_;
  std::vector<Held> held_;
  int users_ = 0;  // of ReadAhead's entries
};

// Reads a checkpoint's files past the page cache, ahead of who packs them: up
// to six windows, of which the caller works on one. One thread calls it.
class ReadAhead {
 public:
  explicit ReadAhead(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  // Whether Begin may be called before another Next.
  bool HasRoom() const;
  // Begins to read a window of these ranges. Those of the last Begin again cost
  // nothing.
  absl::Status Begin(std::vector<SourceRange> ranges);
  // Waits for the window of the oldest Begin, which lives until the next call.
  // DataLoss names the file and the offset that cannot be read.
  absl::StatusOr<const SourceWindow*> Next();

 private:
  static constexpr int kWindows = 6;
  struct Entry {
    int window = 0;
    int reads = 0;  // to wait for
  };

  absl::StatusOr<const DirectFile*> FileOf(int32_t file);
  // A free window.
  int Free() const;
  // What to hold, in whole blocks: neighbours become one.
  static std::vector<SourceWindow::Held> Plan(std::vector<SourceRange> ranges);

  const Checkpoint& checkpoint_;
  std::map<int32_t, DirectFile> files_;  // those read so far
  SourceWindow windows_[kWindows];
  std::deque<Entry> begun_;
  std::vector<SourceRange> last_;  // of the last Begin
  int last_window_ = -1;
  int current_ = -1;    // the caller's
  ReadQueue queue_{2};  // last: its threads write to the windows
};

}  // namespace bullpen
