#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/checkpoint.h"
#include "engine/model/config.h"
#include "engine/model/families.h"
#include "engine/model/pack_layout.h"
#include "kernels/grouped_ffn.h"

namespace bullpen {

// Rows of a source tensor seen as a row-major matrix; a stack of experts
// [E, rows, cols] is one matrix of E * rows rows.
struct RowSlice {
  SourceTensor tensor;
  kernels::DType dtype = kernels::DType::kF32;
  int64_t first_row = 0;
  int64_t rows = 0;
  int32_t cols = 0;
  int64_t row_step = 1;  // 2: every other row
  // Of a matrix that is stored transposed: rows count its columns, and columns
  // its rows, from this one on.
  bool transposed = false;
  int64_t first_col = 0;
};

struct ResidentPlan {
  ResidentShape shape;
  kernels::DType dtype = kernels::DType::kF32;  // of the packed tensor
  std::vector<RowSlice> parts;                  // stacked
  std::string reason = {};  // of that type, where it is not the source's
};

struct ExpertPlan {
  RowSlice gate;
  RowSlice up;
  RowSlice down;
  // Of gate, up and down, each a column; none if the experts have no biases.
  std::vector<RowSlice> biases = {};
};

struct LayerPlan {
  kernels::ExpertShape shape;
  // Of its types, as above: gate's and up's, and down's.
  std::string gate_reason = {};
  std::string down_reason = {};
  int64_t blob_bytes = 0;
  std::vector<ExpertPlan> experts;
};

// Which source rows go where in a packed model.
struct PackPlan {
  std::vector<ResidentPlan> resident;
  std::vector<LayerPlan> layers;
  int64_t total_bytes = 0;  // of weights to write
};

// Finds every tensor that the config asks for under the family's names and
// checks its shape and type. InvalidArgument names the tensor, what it is and
// what the config says: missing, another shape, a type that kernels do not
// have, or one that this family does not know.
absl::StatusOr<PackPlan> PlanPack(const Checkpoint& checkpoint,
                                  const ModelConfig& config,
                                  const Family& family);

}  // namespace bullpen
