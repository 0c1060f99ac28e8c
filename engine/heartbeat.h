#pragma once

#include <atomic>
#include <chrono>

namespace bullpen {

// When a thread last showed life, for liveness probes. The thread itself calls
// Beat and Rest. One atomic says both, so that nobody reads the end of a rest
// together with the beat before it.
class Heartbeat {
 public:
  void Beat() { last_.store(Now(), std::memory_order_relaxed); }
  // It has nothing to do: alive until the next Beat.
  void Rest() { last_.store(kResting, std::memory_order_relaxed); }

  // Any thread. 0 at rest, as before the first Beat.
  double silent_seconds() const {
    const Duration last = last_.load(std::memory_order_relaxed);
    if (last == kResting) return 0;
    return std::chrono::duration<double>(Now() - last).count();
  }

 private:
  using Duration = std::chrono::steady_clock::duration;
  static constexpr Duration kResting = Duration::min();

  static Duration Now() {
    return std::chrono::steady_clock::now().time_since_epoch();
  }

  std::atomic<Duration> last_{kResting};
};

}  // namespace bullpen
