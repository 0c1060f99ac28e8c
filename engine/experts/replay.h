#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "engine/experts/policy.h"
#include "engine/experts/predictor.h"
#include "engine/experts/trace.h"

namespace bullpen {

// Who guesses the experts of the layers ahead.
enum class GuesserKind : uint8_t {
  kNone,
  kLearned,  // RoutingPredictor, with the evidence that a trace holds
  kOracle,   // knows the future; a share of its guesses is spoilt by seed
};

struct ReplayConfig {
  // kStatic pins by the counts of the whole trace: hindsight, as kBelady.
  PolicyConfig policy = {};
  int32_t slots_per_layer = 0;  // 1..experts
  // 1..slots_per_layer: the slots above it move between layers, as SlotPool
  // has it. 0: none moves.
  int32_t layer_floor = 0;
  std::optional<Phase> phase = {};  // only these rows; unset: all

  GuesserKind guesser = GuesserKind::kNone;
  bool governed = false;           // PrefetchGovernor decides when it guesses
  PredictorConfig predictor = {};  // its horizon is every guesser's
  double oracle_recall = 1;        // of each layer's experts, 0..1
  uint64_t seed = 1;

  double link_bytes_per_second = 0;  // 0: transfers take no time
  int64_t chunk_bytes = int64_t{1} << 20;
  // Of each expert, where the trace does not say.
  int64_t expert_bytes = int64_t{3} << 20;
  double layer_seconds = 0;       // computing one layer for one token
  double prompt_row_seconds = 0;  // the same for a token of a prompt
};

struct ReplayReport {
  int64_t tokens = 0;   // in the layer that saw the most
  int64_t lookups = 0;  // always the sum of these four
  int64_t resident = 0;
  int64_t prefetched = 0;       // a guess that had arrived
  int64_t prefetched_late = 0;  // one that was under way
  int64_t missed = 0;

  int64_t loads = 0;  // of demands, and of guesses that were not cancelled
  int64_t bytes_demand = 0;
  int64_t bytes_prefetch_used = 0;
  int64_t bytes_prefetch_wasted = 0;

  double seconds = 0;        // virtual
  double stall_seconds = 0;  // of these: waiting for experts
  double compute_seconds = 0;
  double link_busy_seconds = 0;

  int64_t hits() const { return resident + prefetched; }
  int64_t bytes() const {
    return bytes_demand + bytes_prefetch_used + bytes_prefetch_wasted;
  }
  double hit_rate() const {
    return lookups == 0 ? 0 : static_cast<double>(hits()) / lookups;
  }
  double tokens_per_second() const {
    return seconds == 0 ? 0 : static_cast<double>(tokens) / seconds;
  }
};

// What the live cache and predictor would have done with this routing, from a
// cold start: the same LayerSlots and RoutingPredictor, without memory, threads
// or clock. Each layer routes, guesses, then computes what is resident while
// the rest arrives over one link. Deterministic. `progress` is called with the
// steps done and their number.
ReplayReport Replay(const RoutingTrace& trace, const ReplayConfig& config,
                    const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace bullpen
