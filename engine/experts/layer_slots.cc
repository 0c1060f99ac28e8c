#include "engine/experts/layer_slots.h"

#include <algorithm>

#include "base/check.h"

namespace bullpen {

LayerSlots::LayerSlots(int32_t experts, int32_t slots,
                       const PolicyConfig& policy)
    : policy_(experts, slots, policy),
      slots_(static_cast<size_t>(slots)),
      slot_of_(static_cast<size_t>(experts), -1) {
  CHECK(slots >= 1 && slots <= experts)
      << slots << " slots for " << experts << " experts";
  candidates_.reserve(slots_.size());
}

void LayerSlots::BeginStep(int32_t tokens, Phase phase) {
  now_ += tokens;
  phase_ = phase;
  if (ring_ > 0) {
    for (Slot& slot : slots_) slot.in_ring = false;
    ring_ = 0;
  }
  if (guesses_ > 0) {
    for (Slot& slot : slots_) {
      slot.cold = slot.cold || slot.guessed;
      slot.guessed = false;
      slot.expected = false;
    }
    guesses_ = 0;
  }
}

int32_t LayerSlots::Use(int32_t expert, int32_t count) {
  policy_.Use(expert, now_, count);
  const int32_t slot = slot_of_[expert];
  if (slot >= 0) slots_[slot].cold = false;
  return slot;
}

int32_t LayerSlots::Take(int32_t expert, bool ring_only) {
  CHECK(slot_of_[expert] < 0) << "expert " << expert << " has a slot";
  evicted_ = -1;
  int32_t taken = -1;
  bool cold = false;
  candidates_.clear();
  for (int32_t i = 0; i < slots(); ++i) {
    const Slot& slot = slots_[i];
    if (slot.state == SlotState::kEmpty) {
      taken = i;
      break;
    }
    if (slot.state == SlotState::kLoading || slot.leased || slot.guessed ||
        slot.expected || (ring_only && !slot.in_ring) || slot.cold < cold) {
      continue;
    }
    if (slot.cold > cold) {
      cold = true;
      candidates_.clear();
    }
    candidates_.push_back(slot.expert);
  }
  if (taken < 0) {
    if (candidates_.empty()) return -1;
    const int32_t victim = policy_.Victim(candidates_);
    taken = slot_of_[victim];
    slot_of_[victim] = -1;
    --resident_;
    evicted_ = victim;
  }
  const bool in_ring = slots_[taken].in_ring;
  slots_[taken] = {
      .state = SlotState::kLoading, .in_ring = in_ring, .expert = expert};
  slot_of_[expert] = taken;
  ++loading_;
  return taken;
}

int32_t LayerSlots::ClaimForDemand(int32_t expert) {
  const bool prefill = phase_ == Phase::kPrefill;
  const bool full = ring_ >= std::max(2, slots() / 4);
  const int32_t taken = Take(expert, prefill && full);
  if (taken < 0) return -1;
  Slot& slot = slots_[taken];
  slot.leased = true;
  if (prefill && evicted_ >= 0 && !slot.in_ring) {
    slot.in_ring = true;
    ++ring_;
  }
  return taken;
}

int32_t LayerSlots::ClaimForGuess(int32_t expert) {
  const int32_t taken = Take(expert, /*ring_only=*/false);
  if (taken < 0) return -1;
  slots_[taken].guessed = true;
  ++guesses_;
  return taken;
}

void LayerSlots::Expect(int32_t index) {
  Slot& slot = slots_[index];
  CHECK(slot.state != SlotState::kEmpty) << "slot " << index;
  // A guess that still loads is kept as one.
  if (slot.guessed || slot.expected) return;
  slot.expected = true;
  ++guesses_;
}

void LayerSlots::FinishLoad(int32_t index, bool ok) {
  Slot& slot = slots_[index];
  CHECK(slot.state == SlotState::kLoading) << "slot " << index;
  --loading_;
  if (ok) {
    slot.state = SlotState::kResident;
    ++resident_;
    return;
  }
  slot_of_[slot.expert] = -1;
  guesses_ -= slot.guessed + slot.expected;
  ring_ -= slot.in_ring;
  slot = Slot();
}

void LayerSlots::Lease(int32_t index) {
  Slot& slot = slots_[index];
  CHECK(slot.state != SlotState::kEmpty && !slot.leased) << "slot " << index;
  slot.leased = true;
}

void LayerSlots::Release(int32_t index) {
  CHECK(slots_[index].leased) << "slot " << index;
  slots_[index].leased = false;
}

}  // namespace bullpen
