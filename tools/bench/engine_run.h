#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/engine.h"

namespace bullpen {

// What `sequences` requests ask of the engine at a time.
struct EngineWork {
  int32_t sequences = 1;
  int32_t prompt_tokens = 32;
  int32_t decode_tokens = 64;
};

// Decoding in the best window of some steps, of all sequences together.
struct EngineSpeed {
  double tokens_per_second = 0;
  double mean_tokens_per_second = 0;  // of the whole of the last round
  double step_seconds = 0;
  // Of a step, outside the kernels' loops: scheduler, sampler, cache
  // bookkeeping, streams, and what the model does between two ops.
  double outside_seconds = 0;
};

// Runs such rounds of requests for `seconds`, but two at least. The model was
// loaded with measure_kernels.
absl::StatusOr<EngineSpeed> RunEngine(Engine& engine, const EngineWork& work,
                                      double seconds);

}  // namespace bullpen
