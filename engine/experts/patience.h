#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

namespace bullpen {

// A wake-up takes about as long as reading a small expert, so a thread that
// waits for something looks for it a while before it sleeps; unless its wait
// before was a long one: then it leaves the CPU to others at once. One thread.
class Patience {
 public:
  // Looks at `count` until it is positive or the patience is at its end.
  void BeginWait(const std::atomic<int32_t>& count) {
    begin_ = Clock::now();
    static const bool alone = std::thread::hardware_concurrency() < 2;
    if (alone || !looks_) return;
    while (count.load(std::memory_order_relaxed) == 0 &&
           Clock::now() - begin_ < kLook) {
      std::this_thread::yield();
    }
  }
  // What it waited for is there, looked for or slept for.
  void EndWait() { looks_ = Clock::now() - begin_ < kShortWait; }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::microseconds kLook{20};
  static constexpr std::chrono::microseconds kShortWait{200};

  bool looks_ = true;
  Clock::time_point begin_;
};

}  // namespace bullpen
