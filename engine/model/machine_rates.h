#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/model/packed_model.h"

namespace bullpen {

// What this machine does with a model's own experts, measured in about two
// seconds; other work on the machine lowers it.
struct MachineRates {
  double disk_bytes_per_second = 0;    // whole experts into memory, at random
  double decode_bytes_per_second = 0;  // weights computed for one row
  double prompt_bytes_per_second = 0;  // the same for kPromptRows rows at once
  static constexpr int32_t kPromptRows = 64;
};

// Reads experts through the server's own path, then runs the server's kernels
// over them. DataLoss if an expert cannot be read.
absl::StatusOr<MachineRates> MeasureRates(const PackedModel& model,
                                          int32_t threads,
                                          const std::string& isa);

}  // namespace bullpen
