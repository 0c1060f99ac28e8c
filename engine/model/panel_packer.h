#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "base/worker_pool.h"
#include "engine/model/pack_plan.h"
#include "engine/model/pack_report.h"
#include "engine/model/slice_reader.h"
#include "engine/model/source_window.h"
#include "kernels/types.h"

namespace bullpen {

// Rows of a packed matrix.
struct PanelRows {
  std::span<const RowSlice> parts;  // the matrix: these, stacked
  kernels::DType dtype = kernels::DType::kF32;
  int64_t first = 0;  // a multiple of kBandRows
  int64_t count = 0;
  std::span<const float> importance = {};  // of the columns; may be empty
};

// Turns rows of a checkpoint into panels, quantising where the types differ.
// All CPUs convert and lay out panels of their own; each holds some hundred KiB
// of rows. One thread calls it.
class PanelPacker {
 public:
  explicit PanelPacker(const Checkpoint& checkpoint);

  // From now on rows come out of `window`, see RowReader.
  void Use(const SourceWindow* window);
  // Adds what packing these rows reads of the files.
  static void AddRanges(const PanelRows& rows,
                        std::vector<SourceRange>& ranges);

  // Fills `out`, PanelBytes of the rows, and books what it did in `note`.
  absl::Status Pack(const PanelRows& rows, std::byte* out, PackedTensor& note);

 private:
  // What one worker keeps, and one thread uses.
  struct Worker {
    explicit Worker(const Checkpoint& checkpoint) : reader(checkpoint) {}
    SliceReader reader;
    std::vector<std::byte> stacked;  // plain rows of several parts
    std::vector<std::byte> quantised;
    std::vector<float> back;
  };
  using Errors = PackedTensor;

  static absl::Status PackPlain(const PanelRows& rows, Worker& worker,
                                std::byte* out);
  static absl::Status PackBlocks(const PanelRows& rows, Worker& worker,
                                 std::byte* out, Errors& errors);

  WorkerPool pool_;
  std::vector<Worker> workers_;
};

}  // namespace bullpen
