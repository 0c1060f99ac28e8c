#pragma once

#include <chrono>

namespace bullpen {

// The calling thread asks for the CPU in turns as short as this (100 us to
// 100 ms), and so gets it soon after it wakes, even from threads that compute
// all the time; its share of the CPU stays the same. Linux 6.12 and later, for
// threads of the usual scheduling policy; elsewhere nothing changes: that costs
// time, not results. (The kernel's Documentation/scheduler/sched-eevdf.rst, and
// its commit 857b158dc5e8.)
void ShortenTimeSlice(std::chrono::microseconds slice);

}  // namespace bullpen
