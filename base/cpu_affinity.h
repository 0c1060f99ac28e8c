#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bullpen {

// The CPUs that this process may use, ascending; never empty. They are what
// they were at the first call: a thread that has been pinned since must not
// narrow what the others see. Any thread.
const std::vector<int32_t>& AllowedCpus();

// From now on the calling thread runs on `cpus` alone. A system that refuses
// leaves it where it is: that costs time, not results.
void RestrictThread(std::span<const int32_t> cpus);

}  // namespace bullpen
