#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace bullpen {

// What this process may still take: the machine's free memory, or less where a
// cgroup sets a limit. Reads files of the kernel; any thread.
int64_t AvailableBytes();

// What a memory cgroup (version 1 or 2) leaves below its limit. Its page cache
// counts as free: the kernel gives it up when memory is asked for. Nothing:
// `directory` has no limit, or is no cgroup.
std::optional<int64_t> BytesLeftInCgroup(
    const std::filesystem::path& directory);

}  // namespace bullpen
