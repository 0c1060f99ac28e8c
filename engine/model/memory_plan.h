#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/kv_groups.h"
#include "engine/model/packed_model.h"

namespace bullpen {

// What the operator gives. 0 = decide from the rest.
struct MemoryBudget {
  int64_t total_bytes = 0;   // --memory; 0 = 80 % of what is available
  int64_t kv_bytes = 0;      // --kv-memory
  int64_t expert_bytes = 0;  // --expert-memory
  // What the one NUMA node has that all of it must come from; 0: no such limit.
  int64_t node_bytes = 0;
};

struct MemoryPlan {
  int64_t resident_bytes = 0;
  int64_t activation_bytes = 0;  // scratch of one step
  int64_t kv_bytes = 0;
  std::vector<KvGroup> kv_groups;
  int64_t expert_bytes = 0;
  std::vector<int32_t> slots;  // per layer

  int64_t total_bytes() const {
    return resident_bytes + activation_bytes + kv_bytes + expert_bytes;
  }
  // The table of what needs how much, a line each.
  std::string Table() const;
};

// Whose the expert slots are.
struct SlotDivision {
  std::string_view expert_slots = "layer";  // each layer's own; or shared
  // Of shared: slots that each layer keeps; 0: as many as a token uses experts.
  int32_t layer_floor = 0;
};

// SlotPool's floors, for layers with `slots`; empty where none moves.
// InvalidArgument names the field, its value and the limit.
absl::StatusOr<std::vector<int32_t>> LayerFloors(
    const ModelConfig& config, const SlotDivision& division,
    std::span<const int32_t> slots);

// Splits the budget: resident weights and scratch first, then KV (one full
// context at least, as many as may run at most), then expert slots, dealt
// evenly over the layers. ResourceExhausted carries the table when less is
// left than resident + one context of KV + one slot (two, where the layer has
// two experts) for each layer; FailedPrecondition when it is more than the node
// has.
absl::StatusOr<MemoryPlan> PlanMemory(const PackedModel& model,
                                      const MemoryBudget& budget,
                                      int64_t activation_bytes,
                                      const KvSizes& kv);

}  // namespace bullpen
