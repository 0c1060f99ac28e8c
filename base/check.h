#pragma once

#include <sstream>

namespace bullpen {

// Collects the message of a failed CHECK; its destructor prints and aborts.
class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* condition);
  [[noreturn]] ~CheckFailure();
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

}  // namespace bullpen

// For what only a bug can cause; on in release. Never reachable from input.
#define CHECK(condition) \
  while (!(condition))   \
  ::bullpen::CheckFailure(__FILE__, __LINE__, #condition).stream()
