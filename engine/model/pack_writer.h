#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

#include "absl/status/statusor.h"
#include "engine/model/checkpoint.h"
#include "engine/model/importance.h"
#include "engine/model/pack_layout.h"
#include "engine/model/pack_plan.h"
#include "engine/model/pack_report.h"

namespace bullpen {

// What WriteWeights tells beside its result, and what it knows of the columns.
struct WriteWatch {
  const std::function<void(int64_t done, int64_t total)>& progress;
  PackReport& report;
  const Importance* importance = nullptr;
};

// Writes resident.safetensors and experts.safetensors of `plan` into `dir`,
// synced, and gives the manifest that belongs to them (without source_key).
// Holds some pieces of tensors at a time, see Pack.
absl::StatusOr<Manifest> WriteWeights(const Checkpoint& checkpoint,
                                      const PackPlan& plan,
                                      const std::filesystem::path& dir,
                                      const WriteWatch& watch);

}  // namespace bullpen
