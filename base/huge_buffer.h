#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

namespace bullpen {

// Anonymous memory that is 2 MiB aligned, asks for huge pages, and is touched
// once at creation, so that later use never faults. Move-only.
class HugeBuffer {
 public:
  // bytes > 0. ResourceExhausted says how much was asked.
  static absl::StatusOr<HugeBuffer> Allocate(int64_t bytes);

  HugeBuffer() = default;
  HugeBuffer(HugeBuffer&& other) noexcept;
  HugeBuffer& operator=(HugeBuffer&& other) noexcept;
  ~HugeBuffer();

  std::byte* data() const { return data_; }
  int64_t size() const { return size_; }
  std::span<std::byte> span() const {
    return {data_, static_cast<size_t>(size_)};
  }

 private:
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
  int64_t mapped_ = 0;
};

}  // namespace bullpen
