#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/experts/blob_reader.h"
#include "engine/experts/trace.h"
#include "engine/model/model.h"

namespace bullpen {

// For benchmarks: runs a model whose experts are chosen by a recorded trace
// instead of by its routers.

// The decoded tokens of the trace's first `layers` layers, as one turn.
// InvalidArgument where the trace and the model do not match.
absl::StatusOr<RoutingTrace> RouteFor(const RoutingTrace& trace,
                                      const ModelConfig& config);

struct RoutedResult {
  int64_t tokens = 0;
  double seconds = 0;
  CacheSnapshot cache;
};
struct RoutedRun {
  int32_t tokens = 1;
  // Noise for weights shows nothing of the layers to come. Above 0, a look at
  // the next layer's router shows each expert that it will choose with this
  // probability, and another one instead of it otherwise.
  double look_ahead_recall = 0;
};
// What each further layer takes from that, as measured on real models: 3.5 to
// 4 points.
inline constexpr double kRecallLostByLayer = 0.04;
// Decodes tokens one at a time, from an empty cache; starts over when the
// route ends.
absl::StatusOr<RoutedResult> RunRouted(Model& model, const RoutingTrace& route,
                                       const RoutedRun& run);

// Reads through a mapping of the files, as engines do that leave caching to
// the kernel: the other side of a comparison.
absl::StatusOr<std::unique_ptr<BlobReader>> OpenMappedFiles(
    const std::vector<std::string>& paths);

}  // namespace bullpen
