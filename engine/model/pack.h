#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

#include "absl/status/statusor.h"
#include "engine/model/importance.h"
#include "engine/model/pack_report.h"
#include "engine/model/pack_types.h"

namespace bullpen {

struct PackOptions {
  // Called now and then with bytes written and the total; may be empty.
  std::function<void(int64_t done, int64_t total)> progress;
  TargetTypes targets = {};
  // What quantising knows of a calibration text; null or empty: nothing.
  const Importance* importance = nullptr;
  // Called at the end of a pack that was needed; may be empty.
  std::function<void(const PackReport&)> report = {};
};

// True if `dir` holds a packed model's manifest (any version).
bool IsPacked(const std::filesystem::path& dir);

// Turns a model (see Checkpoint) into a packed model at `target`. Atomic: all
// is written and synced in a sibling directory that is renamed last, so a
// killed pack leaves nothing that looks finished (a later pack removes its
// remains). Peak memory: six pieces of 8 Mi weights (or one transposed matrix)
// as the source has them, three as they are packed, and some MiB for each CPU,
// whatever the size of the model.
// AlreadyExists if `target` is a packed model of another source;
// FailedPrecondition if the source's weight files change meanwhile.
absl::Status Pack(const std::filesystem::path& source,
                  const std::filesystem::path& target,
                  const PackOptions& options);

// For `serve SOURCE`: a packed directory is returned as it is; otherwise the
// cache directory's copy, keyed by the source's content (names, sizes and
// bytes of headers and configs, sizes and mtimes of weights), packed first if
// it is not there, under a file lock so that two processes do not pack the
// same model at once.
absl::StatusOr<std::filesystem::path> PackedCopy(
    const std::filesystem::path& source, const std::filesystem::path& cache_dir,
    const PackOptions& options);

}  // namespace bullpen
