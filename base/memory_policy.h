#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"

namespace bullpen {

inline constexpr int32_t kMaxNumaNodes = 1 << 10;  // the kernel's own limit

// Says from which NUMA nodes `pages` (whole ones, not yet touched) are to be
// taken: one node: from it alone; several: in turn, page by page. nodes: not
// empty, none twice, ids below kMaxNumaNodes. Unimplemented where the kernel
// has no NUMA; PermissionDenied where a container's filter forbids mbind, as
// those of Docker and Kubernetes do without CAP_SYS_NICE.
absl::Status BindPages(std::span<std::byte> pages,
                       std::span<const int32_t> nodes);

// BindPages on a page of its own, to know beforehand.
absl::Status TryBindPages(std::span<const int32_t> nodes);

}  // namespace bullpen
