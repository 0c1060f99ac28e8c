#pragma once

#include <filesystem>
#include <memory>

#include "absl/status/statusor.h"
#include "base/metrics.h"
#include "engine/model/model.h"
#include "tools/model_flags.h"

namespace bullpen {

// The packed copy of `source` (packed now, with progress on standard error, if
// there is none yet).
absl::StatusOr<std::filesystem::path> FindPacked(
    const std::filesystem::path& source,
    const std::filesystem::path& cache_dir);

// FindPacked, then the model in memory.
absl::StatusOr<std::unique_ptr<Model>> LoadModel(
    const std::filesystem::path& source, const ModelFlags& flags,
    Metrics& metrics);

}  // namespace bullpen
