#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace bullpen {

// Reads bytes of a packed model's expert files. Any thread may call Read.
// Virtual because tests delay, fail and corrupt reads by seed.
class BlobReader {
 public:
  virtual ~BlobReader() = default;
  // Fills `out` from `offset` of `file`; offset, size and address are
  // multiples of 4096. DataLoss names the file, the offset and the cause.
  virtual absl::Status Read(int32_t file, int64_t offset,
                            std::span<std::byte> out) = 0;
};

// Files opened with O_DIRECT; a file system without it gets buffered reads
// with POSIX_FADV_DONTNEED, and one log line says so.
absl::StatusOr<std::unique_ptr<BlobReader>> OpenBlobFiles(
    const std::vector<std::string>& paths);

// Imitates a slower disk: all reads together get `bytes_per_second` (> 0).
std::unique_ptr<BlobReader> LimitRate(std::unique_ptr<BlobReader> reader,
                                      int64_t bytes_per_second);

}  // namespace bullpen
