#include "base/time_slice.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace bullpen {
namespace {

// The kernel's struct sched_attr, first version (sched_setattr(2)); its header
// and that of the C library do not go together.
struct Attributes {
  uint32_t size = 0;
  uint32_t policy = 0;
  uint64_t flags = 0;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime = 0;  // ns; of the usual policy: the slice
  uint64_t deadline = 0;
  uint64_t period = 0;
};
static_assert(sizeof(Attributes) == 48);

constexpr int kThisThread = 0;
constexpr unsigned kNoFlags = 0;

}  // namespace

void ShortenTimeSlice(std::chrono::microseconds slice) {
  // What else it says stays: how nice the thread is, above all.
  Attributes attributes;
  if (syscall(SYS_sched_getattr, kThisThread, &attributes, sizeof(attributes),
              kNoFlags) != 0 ||
      attributes.policy != SCHED_OTHER) {
    return;
  }
  attributes.runtime =
      static_cast<uint64_t>(std::chrono::nanoseconds(slice).count());
  syscall(SYS_sched_setattr, kThisThread, &attributes, kNoFlags);
}

}  // namespace bullpen
