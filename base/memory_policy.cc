#include "base/memory_policy.h"

#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"

namespace bullpen {
namespace {

constexpr int32_t kWordBits = sizeof(unsigned long) * CHAR_BIT;

absl::StatusCode CodeOf(int error) {
  if (error == ENOSYS) return absl::StatusCode::kUnimplemented;
  if (error == EPERM) return absl::StatusCode::kPermissionDenied;
  return absl::StatusCode::kFailedPrecondition;
}

}  // namespace

absl::Status BindPages(std::span<std::byte> pages,
                       std::span<const int32_t> nodes) {
  std::vector<unsigned long> mask(kMaxNumaNodes / kWordBits);
  for (const int32_t node : nodes) {
    CHECK(node >= 0 && node < kMaxNumaNodes) << "node " << node;
    mask[node / kWordBits] |= 1UL << node % kWordBits;
  }
  const int mode = nodes.size() > 1 ? MPOL_INTERLEAVE : MPOL_BIND;
  // The kernel takes one bit less than it is told (mbind(2), BUGS of old).
  if (syscall(SYS_mbind, pages.data(), pages.size(), mode, mask.data(),
              kMaxNumaNodes + 1, 0) == 0) {
    return absl::OkStatus();
  }
  const int error = errno;
  return absl::Status(CodeOf(error), absl::StrCat("mbind to NUMA nodes ",
                                                  absl::StrJoin(nodes, ","),
                                                  ": ", std::strerror(error)));
}

absl::Status TryBindPages(std::span<const int32_t> nodes) {
  const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* page = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a page for mbind: ", std::strerror(errno)));
  }
  const absl::Status status =
      BindPages({static_cast<std::byte*>(page), bytes}, nodes);
  munmap(page, bytes);
  return status;
}

}  // namespace bullpen
