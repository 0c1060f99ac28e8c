#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/experts/expert.h"
#include "engine/experts/layer_slots.h"
#include "engine/experts/policy.h"

namespace bullpen {

// The slots of all layers of a cache, and how many of them each layer has. Each
// keeps its own, or, where its floor is lower, loses one now and then to a
// layer whose own victim matters more. What matters least is, in this order: an
// empty slot, a guess that came to nothing, the least score by the policy, the
// longest time in tokens since the last use; then the claiming layer's own, so
// that no slot wanders for nothing, then that of the layer that ran last, whose
// turn is farthest. Pure, as LayerSlots.
class SlotPool {
 public:
  struct LayerShape {
    int32_t experts = 1;
    int32_t slots = 1;  // at first: 1..experts
    // 1..slots. A layer that has more may lose them, to layers of the same blob
    // size.
    int32_t floor = 1;
    int64_t blob_bytes = 0;
  };

  SlotPool(std::span<const LayerShape> layers, PolicyConfig policy);
  SlotPool(const SlotPool&) = delete;

  // As LayerSlots::BeginStep. Until the next one, no other layer takes a slot
  // of this one.
  void BeginStep(int32_t layer, int32_t tokens, Phase phase);
  // As LayerSlots', but where slots move, the layer may get another one. In a
  // prefill step it does not: a prompt would empty the other layers.
  int32_t ClaimForDemand(ExpertKey key);
  int32_t ClaimForGuess(ExpertKey key);
  // Whom the last claim evicted; its expert is -1: nobody.
  ExpertKey evicted() const { return evicted_; }
  // Which layer lost a slot to the last claim; -1: none did.
  int32_t giver() const { return giver_; }

  LayerSlots& layer(int32_t index) { return layers_[index].slots; }
  const LayerSlots& layer(int32_t index) const { return layers_[index].slots; }
  int32_t layers() const { return static_cast<int32_t>(layers_.size()); }
  int32_t share(int32_t index) const { return layers_[index].share; }
  // Of all layers, and of the places that slots are at: 0..slots() - 1.
  int32_t slots() const { return slots_; }

 private:
  struct Layer {
    LayerSlots slots;
    int32_t share = 1;  // slots at first
    int32_t floor = 1;
    int64_t blob_bytes = 0;
  };
  int32_t Claim(ExpertKey key, int32_t (LayerSlots::*claim)(int32_t));
  void MoveSlotTo(int32_t home);
  int32_t FindGiver(int32_t home);

  RuleChoice rule_;  // of all layers' policies
  std::vector<Layer> layers_;
  int32_t slots_ = 0;
  bool slots_move_ = false;
  int32_t running_ = -1;  // the layer of the last BeginStep
  Phase phase_ = Phase::kDecode;
  ExpertKey evicted_ = {.layer = -1, .expert = -1};
  int32_t giver_ = -1;
};

}  // namespace bullpen
