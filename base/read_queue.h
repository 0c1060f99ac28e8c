#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "base/direct_file.h"

namespace bullpen {

// Reads on threads of its own, so that the disk works on the next reads while
// the caller works on what the last ones brought. Reads begin in the order in
// which they were submitted. One thread calls it.
class ReadQueue {
 public:
  // What DirectFile::Read takes; file and memory outlive the read.
  struct Job {
    const DirectFile* file = nullptr;
    int64_t offset = 0;
    std::span<std::byte> out;
    int64_t needed = 0;
  };

  // `threads` reads are under way at a time.
  explicit ReadQueue(int threads);
  ~ReadQueue();  // Waits for the reads under way, and gives up the others.
  ReadQueue(const ReadQueue&) = delete;
  ReadQueue& operator=(const ReadQueue&) = delete;

  void Submit(const Job& job);
  // Waits for the oldest job that was not waited for yet, and gives its status.
  // CHECKs that there is one.
  absl::Status Wait();

 private:
  struct Entry {
    Job job;
    bool done = false;
    absl::Status status = {};
  };

  void Run();
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return closed_ || begun_ < std::ssize(entries_);
  }
  bool OldestDone() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return entries_.front().done;
  }

  absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  // Jobs that were not waited for; a deque, so that entries keep their place.
  std::deque<Entry> entries_ ABSL_GUARDED_BY(mutex_);
  int64_t begun_ ABSL_GUARDED_BY(mutex_) = 0;  // of those, from the front on
  std::vector<std::jthread> threads_;
};

}  // namespace bullpen
