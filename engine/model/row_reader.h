#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/checkpoint.h"
#include "kernels/types.h"

namespace bullpen {

// Rows of a tensor, seen as a matrix whose row is its last dimension.
struct RowRange {
  int64_t first = 0;
  int64_t count = 0;
};

// Reads weights of a checkpoint in a type that kernels know, whatever they are
// stored as. Keeps its buffer: one thread, one tensor after another.
class RowReader {
 public:
  explicit RowReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  // Row-major values as `dtype`, a plain type that holds them exactly, into
  // `out`, which has their size. CHECKs that.
  absl::Status Read(const SourceTensor& tensor, RowRange rows,
                    kernels::DType dtype, std::span<std::byte> out);

  // The rows as they are stored, in the decoder's order, until the next call.
  absl::StatusOr<std::span<const std::byte>> ReadBlocks(
      const SourceTensor& tensor, RowRange rows);

 private:
  // Rows of a tensor with scales, and the rows of those, as they are stored.
  absl::Status ReadWithScales(const SourceTensor& tensor, RowRange rows);
  // As GGUF files have them.
  absl::Status ReadMxfp4(const SourceTensor& tensor, RowRange rows,
                         std::span<std::byte> out);
  absl::Status ReadFp8(const SourceTensor& tensor, RowRange rows, float* out);
  // DataLoss if not every value is one of that type.
  absl::Status ReadFp8AsBf16(const SourceTensor& tensor, RowRange rows,
                             std::span<std::byte> out);
  absl::Status ReadStored(const SourceTensor& tensor, RowRange rows,
                          std::span<std::byte> out);

  const Checkpoint& checkpoint_;
  std::vector<std::byte> stored_;
  std::vector<std::byte> weights_;
  std::vector<std::byte> scales_;
  std::vector<float> values_;
};

}  // namespace bullpen
