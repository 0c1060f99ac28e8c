#include "engine/model/source_window.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/status.h"

namespace bullpen {
namespace {

// Large enough for a disk to reach its rate.
constexpr int64_t kReadBytes = int64_t{4} << 20;

int64_t RoundUp(int64_t n) {
  return (n + kDirectAlignment - 1) / kDirectAlignment * kDirectAlignment;
}

}  // namespace

const std::byte* SourceWindow::Find(const SourceRange& range) const {
  for (const Held& held : held_) {
    if (held.range.file == range.file && held.range.offset <= range.offset &&
        range.end() <= held.range.end()) {
      return memory_.data() + held.at + (range.offset - held.range.offset);
    }
  }
  return nullptr;
}

std::vector<SourceWindow::Held> ReadAhead::Plan(
    std::vector<SourceRange> ranges) {
  std::ranges::sort(ranges);
  std::vector<SourceWindow::Held> plan;
  int64_t at = 0;
  for (SourceRange range : ranges) {
    const int64_t before = range.offset % kDirectAlignment;
    range.offset -= before;
    range.bytes += before;
    if (!plan.empty() && plan.back().range.file == range.file &&
        range.offset <= RoundUp(plan.back().range.end())) {
      SourceRange& last = plan.back().range;
      last.bytes = std::max(last.end(), range.end()) - last.offset;
    } else {
      plan.push_back({range, at});
    }
    at = plan.back().at + RoundUp(plan.back().range.bytes);
  }
  return plan;
}

int ReadAhead::Free() const {
  for (int i = 0; i < kWindows; ++i) {
    if (windows_[i].users_ == 0) return i;
  }
  return -1;
}

bool ReadAhead::HasRoom() const { return Free() >= 0; }

absl::StatusOr<const DirectFile*> ReadAhead::FileOf(int32_t file) {
  auto found = files_.find(file);
  if (found == files_.end()) {
    ASSIGN_OR_RETURN(DirectFile opened,
                     DirectFile::Open(checkpoint_.open_file(file).path()));
    found = files_.emplace(file, std::move(opened)).first;
  }
  return &found->second;
}

absl::Status ReadAhead::Begin(std::vector<SourceRange> ranges) {
  if (last_window_ >= 0 && windows_[last_window_].users_ > 0 &&
      ranges == last_) {
    ++windows_[last_window_].users_;
    begun_.push_back({.window = last_window_});
    return absl::OkStatus();
  }
  const int free = Free();
  CHECK(free >= 0) << "all windows are in use";
  SourceWindow& window = windows_[free];
  window.held_ = Plan(ranges);
  int64_t bytes = 0;
  if (!window.held_.empty()) {
    const SourceWindow::Held& last = window.held_.back();
    bytes = last.at + RoundUp(last.range.bytes);
  }
  if (window.memory_.size() < bytes) {
    window.memory_ = HugeBuffer();  // Given back before the larger is taken.
    ASSIGN_OR_RETURN(window.memory_, HugeBuffer::Allocate(bytes));
  }
  Entry entry{.window = free};
  for (const SourceWindow::Held& held : window.held_) {
    ASSIGN_OR_RETURN(const DirectFile* const file, FileOf(held.range.file));
    for (int64_t done = 0; done < held.range.bytes; done += kReadBytes) {
      const int64_t left = held.range.bytes - done;
      queue_.Submit(
          {.file = file,
           .offset = held.range.offset + done,
           .out = window.memory_.span().subspan(
               static_cast<size_t>(held.at + done),
               static_cast<size_t>(std::min(RoundUp(left), kReadBytes))),
           .needed = std::min(left, kReadBytes)});
      ++entry.reads;
    }
  }
  window.users_ = 1;
  last_window_ = free;
  last_ = std::move(ranges);
  begun_.push_back(entry);
  return absl::OkStatus();
}

absl::StatusOr<const SourceWindow*> ReadAhead::Next() {
  CHECK(!begun_.empty()) << "nothing was begun";
  if (current_ >= 0) --windows_[current_].users_;
  const Entry entry = begun_.front();
  begun_.pop_front();
  current_ = entry.window;
  for (int i = 0; i < entry.reads; ++i) RETURN_IF_ERROR(queue_.Wait());
  return &windows_[current_];
}

}  // namespace bullpen
