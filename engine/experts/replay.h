#pragma once

#include <cstdint>
#include <optional>

#include "engine/experts/policy.h"
#include "engine/experts/trace.h"

namespace bullpen {

struct ReplayConfig {
  // kStatic pins by the counts of the whole trace: hindsight, as kBelady.
  PolicyConfig policy = {};
  int32_t slots_per_layer = 0;      // 1..experts
  std::optional<Phase> phase = {};  // only these rows; unset: all
};

struct ReplayReport {
  int64_t lookups = 0;
  int64_t hits = 0;
  int64_t loads = 0;
  int64_t bytes = 0;   // of the loads, as far as the trace says how large
  int64_t tokens = 0;  // in the layer that saw the most

  double hit_rate() const {
    return lookups == 0 ? 0 : static_cast<double>(hits) / lookups;
  }
};

// What the live cache's rule would have done with this routing, from a cold
// start, if each load took no time: the same LayerSlots, without memory,
// threads or clock. A decoded token is a step of its own, a prompt is one.
// Deterministic.
ReplayReport Replay(const RoutingTrace& trace, const ReplayConfig& config);

}  // namespace bullpen
