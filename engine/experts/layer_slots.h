#pragma once

#include <cstdint>
#include <vector>

#include "engine/experts/expert.h"
#include "engine/experts/policy.h"

namespace bullpen {

enum class SlotState : uint8_t { kEmpty, kLoading, kResident };

// The slots of one layer: which expert each holds, and which goes next. A slot
// goes Empty -> Loading -> Resident -> Empty (or Loading -> Empty when the load
// fails). Pure: it moves no bytes and knows no clock; the live cache and the
// trace simulator run this same code.
class LayerSlots {
 public:
  // 1 <= slots <= experts.
  LayerSlots(int32_t experts, int32_t slots, const PolicyConfig& policy);

  // The layer runs for `tokens` tokens. Ends the leases of guesses: those that
  // no Use() takes up now are the first to go.
  void BeginStep(int32_t tokens, Phase phase);
  // `count` tokens of this step use `expert`. Returns its slot, or -1.
  int32_t Use(int32_t expert, int32_t count);

  // Takes an empty slot, else the policy's victim, for `expert` (in no slot
  // yet): Loading, and leased. Never takes a leased or loading slot, nor, in a
  // prefill step, more than max(2, slots / 4) that were resident: it streams
  // through those. -1: none may be taken now.
  int32_t ClaimForDemand(int32_t expert);
  // The same for a guess, leased until the layer's next BeginStep.
  int32_t ClaimForGuess(int32_t expert);
  // This expert, in that slot, is guessed too: no claim takes it before the
  // layer's next BeginStep.
  void Expect(int32_t slot);
  // Whose slot the last claim took; -1: it was empty, or there was no claim.
  int32_t evicted() const { return evicted_; }
  // The load has ended. A failed one leaves the slot empty and unleased.
  void FinishLoad(int32_t slot, bool ok);

  // A leased slot is never a victim.
  void Lease(int32_t slot);
  void Release(int32_t slot);

  // As the policy has it now.
  double Score(int32_t expert) const { return policy_.Score(expert, now_); }
  // -1: in no slot.
  int32_t Find(int32_t expert) const { return slot_of_[expert]; }
  SlotState state(int32_t slot) const { return slots_[slot].state; }
  int32_t expert(int32_t slot) const { return slots_[slot].expert; }
  bool leased(int32_t slot) const { return slots_[slot].leased; }
  int32_t slots() const { return static_cast<int32_t>(slots_.size()); }
  int32_t experts() const { return static_cast<int32_t>(slot_of_.size()); }
  int32_t loading() const { return loading_; }
  int32_t resident() const { return resident_; }
  EvictionPolicy& policy() { return policy_; }
  const EvictionPolicy& policy() const { return policy_; }

 private:
  struct Slot {
    SlotState state = SlotState::kEmpty;
    bool leased = false;    // by the step that runs
    bool guessed = false;   // leased by a guess whose layer has not run
    bool expected = false;  // resident, and guessed for the step to come
    bool cold = false;      // a guess that its layer did not use
    bool in_ring = false;   // taken by this prefill step
    int32_t expert = -1;
  };
  int32_t Take(int32_t expert, bool ring_only);

  EvictionPolicy policy_;
  std::vector<Slot> slots_;
  std::vector<int32_t> slot_of_;  // by expert
  int64_t now_ = 0;               // tokens seen
  int32_t loading_ = 0;
  int32_t resident_ = 0;
  int32_t guesses_ = 0;  // slots that are `guessed` or `expected`
  int32_t evicted_ = -1;
  Phase phase_ = Phase::kDecode;
  int32_t ring_ = 0;                 // slots that are `in_ring`
  std::vector<int32_t> candidates_;  // scratch
};

}  // namespace bullpen
