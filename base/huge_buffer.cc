#include "base/huge_buffer.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/memory_policy.h"
#include "base/strings.h"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {
constexpr int64_t kHugePage = int64_t{2} << 20;
}

absl::StatusOr<HugeBuffer> HugeBuffer::Allocate(
    int64_t bytes, Touch touch, std::span<const int32_t> nodes) {
  // A small buffer takes small pages: rounding it to 2 MiB would waste memory
  // that the budget does not know of.
  const int64_t page = bytes >= kHugePage ? kHugePage : 4096;
  const int64_t mapped = (bytes + page - 1) / page * page;
  const int64_t slack = page == kHugePage ? kHugePage : 0;
  void* raw = mmap(nullptr, static_cast<size_t>(mapped + slack),
                   PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot allocate ", FormatBytes(bytes), ": ", std::strerror(errno)));
  }
  std::byte* start = static_cast<std::byte*>(raw);
  if (slack > 0) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(raw);
    const uintptr_t aligned =
        (address + kHugePage - 1) & ~(uintptr_t{kHugePage} - 1);
    const size_t head = aligned - address;
    if (head > 0) munmap(raw, head);
    start += head;
    const size_t tail = static_cast<size_t>(slack) - head;
    if (tail > 0) munmap(start + mapped, tail);
  }
  const bool in_turn = nodes.size() > 1;
  if (in_turn || page == kHugePage) {
    madvise(start, static_cast<size_t>(mapped),
            in_turn ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
  }
  HugeBuffer buffer;
  buffer.data_ = start;
  buffer.size_ = bytes;
  buffer.mapped_ = mapped;
  if (!nodes.empty()) {
    const absl::Status bound = BindPages(buffer.pages(), nodes);
    if (!bound.ok()) {
      spdlog::warn("{} of memory is not placed: {}", FormatBytes(bytes),
                   std::string(bound.message()));
    }
  }
  for (int64_t i = 0; touch == Touch::kNow && i < mapped; i += 4096) {
    start[i] = std::byte{0};
  }
  return buffer;
}

HugeBuffer::HugeBuffer(HugeBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, 0)) {}

HugeBuffer& HugeBuffer::operator=(HugeBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

HugeBuffer::~HugeBuffer() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(mapped_));
}

}  // namespace bullpen
