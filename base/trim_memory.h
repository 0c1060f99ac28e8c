#pragma once

#include <malloc.h>

#include <cstdint>

namespace bullpen {

// Gives the memory of what was freed back to the system, if it was much: glibc
// keeps it otherwise. Takes milliseconds then: for workers.
inline void TrimAfter(int64_t freed_bytes) {
  constexpr int64_t kMuch = int64_t{1} << 20;
  if (freed_bytes >= kMuch) malloc_trim(0);
}

}  // namespace bullpen
