#include "base/time_slice.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>

#include "gtest/gtest.h"

namespace bullpen {
namespace {

// Where sched_getattr(2) puts what it knows of the calling thread.
struct Seen {
  int32_t nice = 0;
  uint64_t slice = 0;  // ns; 0: this kernel has none for each thread
};

Seen OfThisThread() {
  std::array<unsigned char, 48> attributes = {};
  EXPECT_EQ(
      syscall(SYS_sched_getattr, 0, attributes.data(), attributes.size(), 0u),
      0);
  Seen seen;
  std::memcpy(&seen.nice, attributes.data() + 16, sizeof(seen.nice));
  std::memcpy(&seen.slice, attributes.data() + 24, sizeof(seen.slice));
  return seen;
}

TEST(TimeSlice, IsShorterForThisThreadAloneWhichStaysAsNiceAsItWas) {
  const Seen of_test = OfThisThread();
  std::jthread([&] {
    setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)),
                of_test.nice + 1);
    const Seen before = OfThisThread();
    ASSERT_EQ(before.nice, of_test.nice + 1);
    ShortenTimeSlice(std::chrono::microseconds(100));
    const Seen after = OfThisThread();
    EXPECT_EQ(after.nice, before.nice);
    EXPECT_EQ(after.slice, before.slice == 0 ? 0 : 100'000);
  }).join();
  EXPECT_EQ(OfThisThread().slice, of_test.slice);
}

}  // namespace
}  // namespace bullpen
