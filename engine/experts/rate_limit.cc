#include <sys/prctl.h>

#include <chrono>
#include <memory>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/experts/blob_reader.h"

namespace bullpen {
namespace {

using SteadyClock = std::chrono::steady_clock;

class RateLimitedReader : public BlobReader {
 public:
  RateLimitedReader(std::unique_ptr<BlobReader> reader,
                    int64_t bytes_per_second)
      : reader_(std::move(reader)), bytes_per_second_(bytes_per_second) {}

  absl::Status Read(int32_t file, int64_t offset,
                    std::span<std::byte> out) override {
    const SteadyClock::time_point end = Reserve(out.size());
    const absl::Status status = reader_->Read(file, offset, out);
    // Of the 50 us that the kernel may add otherwise a disk knows nothing.
    prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
    std::this_thread::sleep_until(end);  // the limit is one of time
    return status;
  }

 private:
  // Reads take their turns on the one slow disk that is imitated; the time at
  // which this one would be done there.
  SteadyClock::time_point Reserve(size_t bytes) {
    const auto cost = std::chrono::duration_cast<SteadyClock::duration>(
        std::chrono::duration<double>(static_cast<double>(bytes) /
                                      static_cast<double>(bytes_per_second_)));
    absl::MutexLock lock(&mutex_);
    free_ = std::max(free_, SteadyClock::now()) + cost;
    return free_;
  }

  const std::unique_ptr<BlobReader> reader_;
  const int64_t bytes_per_second_;
  absl::Mutex mutex_;
  SteadyClock::time_point free_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<BlobReader> LimitRate(std::unique_ptr<BlobReader> reader,
                                      int64_t bytes_per_second) {
  return std::make_unique<RateLimitedReader>(std::move(reader),
                                             bytes_per_second);
}

}  // namespace bullpen
