#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
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

  // Row-major values as `dtype`, KernelDType(tensor) or F32, into `out`, which
  // has their size. CHECKs that.
  absl::Status Read(const SourceTensor& tensor, RowRange rows,
                    kernels::DType dtype, std::span<std::byte> out);

 private:
  // The rows as they are stored, in `out`.
  absl::Status ReadStored(const SourceTensor& tensor, RowRange rows,
                          std::span<std::byte> out) const;

  const Checkpoint& checkpoint_;
  std::vector<std::byte> stored_;
  std::vector<float> values_;
};

}  // namespace bullpen
