#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace bullpen {

// A test's hand on the fake chat templates of its process. Any thread.
class FakeRendering {
 public:
  // From now on Render waits, until Release.
  static void Hold();
  static void Release();
  // Waits until `count` renderings are held. False after 20 s.
  static bool AwaitHeld(int32_t count);
  // Every rendering gives this, until it is OkStatus.
  static void FailWith(absl::Status status);
  // Renderings that have begun.
  static int64_t begun();
};

}  // namespace bullpen
