#pragma once

#include <cstdint>
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
};

struct ResidentPlan {
  ResidentShape shape;
  kernels::DType dtype = kernels::DType::kF32;  // of the packed tensor
  std::vector<RowSlice> parts;                  // stacked
};

struct ExpertPlan {
  RowSlice gate;
  RowSlice up;
  RowSlice down;
};

struct LayerPlan {
  kernels::ExpertShape shape;
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
