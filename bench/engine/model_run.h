#pragma once

#include "absl/status/statusor.h"
#include "bench/engine/steps.h"
#include "engine/model/model.h"

namespace bullpen::bench {

// Greedy decoding by plain calls of Forward, on this thread: no scheduler, no
// streams. The model's own cost, to subtract from the engine's.
absl::StatusOr<Best> RunModel(Model& model, const Workload& workload);

}  // namespace bullpen::bench
