#pragma once

#include <atomic>
#include <thread>

#include "base/check.h"

namespace bullpen {

// Holds a class to one thread: the first thread that calls Check() owns it.
// Release() lets another thread take over (construction on main, say).
class ThreadOwner {
 public:
  void Check() {
    std::thread::id none;
    const std::thread::id self = std::this_thread::get_id();
    if (owner_.load(std::memory_order_relaxed) == self) return;
    CHECK(owner_.compare_exchange_strong(none, self))
        << "called from a thread that does not own this object";
  }
  void Release() { owner_.store(std::thread::id()); }

 private:
  std::atomic<std::thread::id> owner_;
};

}  // namespace bullpen
