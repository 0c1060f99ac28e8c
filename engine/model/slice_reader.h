#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/pack_plan.h"
#include "engine/model/row_reader.h"
#include "engine/model/source_window.h"

namespace bullpen {

// Reads rows of slices, wherever a checkpoint keeps their elements. Keeps its
// buffers: one thread, and a result lives until the next call, as does the
// window.
class SliceReader {
 public:
  explicit SliceReader(const Checkpoint& checkpoint) : reader_(checkpoint) {}

  // See RowReader.
  void Use(const SourceWindow* window) { reader_.Use(window); }
  static void AddRanges(const RowSlice& slice, RowRange rows,
                        std::vector<SourceRange>& ranges);

  // Row-major, as `dtype`, a plain type that holds them exactly.
  absl::StatusOr<std::span<const std::byte>> Read(const RowSlice& slice,
                                                  RowRange rows,
                                                  kernels::DType dtype);
  absl::StatusOr<std::span<const float>> ReadFloats(const RowSlice& slice,
                                                    RowRange rows);
  // The blocks as they are stored; the slice is not transposed.
  absl::StatusOr<std::span<const std::byte>> ReadBlocks(const RowSlice& slice,
                                                        RowRange rows);

 private:
  RowReader reader_;
  std::vector<std::byte> picked_;
};

}  // namespace bullpen
