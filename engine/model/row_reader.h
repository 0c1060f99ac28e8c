#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/checkpoint.h"
#include "engine/model/source_window.h"
#include "kernels/types.h"

namespace bullpen {

// Rows of a tensor, seen as a matrix whose row is its last dimension.
struct RowRange {
  int64_t first = 0;
  int64_t count = 0;
};

// Reads weights of a checkpoint in a type that kernels know, whatever they are
// stored as. Keeps its buffers: one thread, and a result lives until the next
// call.
class RowReader {
 public:
  explicit RowReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  // From now on bytes that `window` has are taken there; null: from the files.
  void Use(const SourceWindow* window) { window_ = window; }

  // Row-major values as `dtype`, a plain type that holds them exactly.
  absl::StatusOr<std::span<const std::byte>> Read(const SourceTensor& tensor,
                                                  RowRange rows,
                                                  kernels::DType dtype);

  // The rows as they are stored, in the decoder's order.
  absl::StatusOr<std::span<const std::byte>> ReadBlocks(
      const SourceTensor& tensor, RowRange rows);

  // Adds what both would read of the files.
  static void AddRanges(const SourceTensor& tensor, RowRange rows,
                        std::vector<SourceRange>& ranges);

 private:
  using Bytes = std::vector<std::byte>;
  // Rows of a tensor that has its scales in another one.
  struct Scaled {
    std::span<const std::byte> weights;
    std::span<const std::byte> scales;
  };

  // The range's bytes, in the window or else in `buffer`.
  absl::StatusOr<std::span<const std::byte>> Take(const SourceRange& range,
                                                  Bytes& buffer);
  absl::StatusOr<Scaled> TakeScaled(const SourceTensor& tensor, RowRange rows);
  absl::StatusOr<std::span<const std::byte>> ReadInterleaved(
      const SourceTensor& tensor, RowRange rows);
  // As GGUF files have them.
  absl::StatusOr<std::span<const std::byte>> ReadMxfp4(
      const SourceTensor& tensor, RowRange rows);
  absl::Status ReadFp8(const SourceTensor& tensor, RowRange rows, float* out);
  // DataLoss if not every value is one of that type.
  absl::Status ReadFp8AsBf16(const SourceTensor& tensor, RowRange rows);

  const Checkpoint& checkpoint_;
  const SourceWindow* window_ = nullptr;
  Bytes stored_;
  Bytes scales_;
  Bytes joined_;
  Bytes out_;
  std::vector<float> values_;
};

}  // namespace bullpen
