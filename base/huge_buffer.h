#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

namespace bullpen {

// Anonymous memory that is 2 MiB aligned (less than 2 MiB: to 4 KiB), asks for
// huge pages, and is touched once at creation, so that later use never faults.
// Over several NUMA nodes its pages lie in turn and are small: each worker
// reads along a stream and so finds the nodes in turn, where huge pages would
// let several wait for one node for 2 MiB. Move-only.
class HugeBuffer {
 public:
  // kLater: pages fault in at their first use, as when a disk fills them.
  enum class Touch : uint8_t { kNow, kLater };

  // bytes > 0. ResourceExhausted says how much was asked. nodes: as BindPages,
  // or empty: as the kernel likes; if the kernel refuses them, it logs so.
  static absl::StatusOr<HugeBuffer> Allocate(
      int64_t bytes, Touch touch = Touch::kNow,
      std::span<const int32_t> nodes = {});

  HugeBuffer() = default;
  HugeBuffer(HugeBuffer&& other) noexcept;
  HugeBuffer& operator=(HugeBuffer&& other) noexcept;
  ~HugeBuffer();

  std::byte* data() const { return data_; }
  int64_t size() const { return size_; }
  std::span<std::byte> span() const {
    return {data_, static_cast<size_t>(size_)};
  }
  // All of its pages: whole blocks for direct reads, whatever size() is.
  std::span<std::byte> pages() const {
    return {data_, static_cast<size_t>(mapped_)};
  }

 private:
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
  int64_t mapped_ = 0;
};

}  // namespace bullpen
