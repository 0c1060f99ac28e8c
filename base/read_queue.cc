#include "base/read_queue.h"

#include <utility>

#include "base/check.h"

namespace bullpen {

ReadQueue::ReadQueue(int threads) {
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { Run(); });
  }
}

ReadQueue::~ReadQueue() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
}

void ReadQueue::Submit(const Job& job) {
  absl::MutexLock lock(&mutex_);
  entries_.push_back({.job = job});
}

absl::Status ReadQueue::Wait() {
  absl::MutexLock lock(&mutex_);
  CHECK(!entries_.empty()) << "no read to wait for";
  mutex_.Await(absl::Condition(this, &ReadQueue::OldestDone));
  absl::Status status = std::move(entries_.front().status);
  entries_.pop_front();
  --begun_;
  return status;
}

void ReadQueue::Run() {
  while (true) {
    Entry* entry = nullptr;
    Job job;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &ReadQueue::HasWork));
      if (closed_) return;
      entry = &entries_[static_cast<size_t>(begun_++)];
      job = entry->job;
    }
    absl::Status status = job.file->Read(job.offset, job.out, job.needed);
    absl::MutexLock lock(&mutex_);
    entry->status = std::move(status);
    entry->done = true;
  }
}

}  // namespace bullpen
