#pragma once

#include "absl/status/statusor.h"
#include "bench/engine/steps.h"
#include "engine/engine.h"

namespace bullpen::bench {

// The same work through Submit and TokenStreams. Token times are taken on the
// engine thread, in on_ready.
absl::StatusOr<Best> RunEngine(Engine& engine, const Workload& workload);

}  // namespace bullpen::bench
