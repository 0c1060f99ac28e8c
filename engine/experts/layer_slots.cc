#include "engine/experts/layer_slots.h"

#include <algorithm>

#include "base/check.h"

namespace bullpen {

LayerSlots::LayerSlots(int32_t experts, int32_t slots,
                       const PolicyConfig& policy, int32_t first_place)
    : policy_(experts, slots, policy),
      slots_(static_cast<size_t>(slots)),
      slot_of_(static_cast<size_t>(experts), -1) {
  CHECK(slots >= 1 && slots <= experts)
      << slots << " slots for " << experts << " experts";
  for (Slot& slot : slots_) slot.place = first_place++;
  candidates_.reserve(slots_.size());
}

void LayerSlots::BeginStep(int32_t tokens, Phase phase) {
  loss_known_ = false;
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
  loss_known_ = false;
  policy_.Use(expert, now_, count);
  const int32_t slot = slot_of_[expert];
  if (slot >= 0) slots_[slot].cold = false;
  return slot;
}

// An empty slot, else the victim's; -1: none. Leaves in candidates_ what it
// chose the victim among.
int32_t LayerSlots::Choose(Among among) {
  bool cold = false;
  candidates_.clear();
  for (int32_t i = 0; i < slots(); ++i) {
    const Slot& slot = slots_[i];
    if (slot.state == SlotState::kEmpty) return i;
    if (slot.state == SlotState::kLoading || slot.leased || slot.guessed ||
        slot.expected || slot.cold < cold || !IsAmong(slot, among)) {
      continue;
    }
    if (slot.cold > cold) {
      cold = true;
      candidates_.clear();
    }
    candidates_.push_back(slot.expert);
  }
  return candidates_.empty() ? -1 : slot_of_[policy_.Victim(candidates_)];
}

bool LayerSlots::IsAmong(const Slot& slot, Among among) const {
  switch (among) {
    case Among::kAll:
      return true;
    case Among::kRing:
      return slot.in_ring;
    case Among::kNotLast:
      return policy_.LastUseTime(slot.expert) < now_;
  }
  return false;
}

// What it holds, if anything, goes.
void LayerSlots::Vacate(Slot& slot) {
  evicted_ = slot.expert;
  if (slot.expert < 0) return;
  slot_of_[slot.expert] = -1;
  --resident_;
}

int32_t LayerSlots::Take(int32_t expert, Among among) {
  CHECK(slot_of_[expert] < 0) << "expert " << expert << " has a slot";
  loss_known_ = false;
  evicted_ = -1;
  const int32_t taken = Choose(among);
  if (taken < 0) return -1;
  Slot& slot = slots_[taken];
  Vacate(slot);
  slot = {.place = slot.place,
          .state = SlotState::kLoading,
          .in_ring = slot.in_ring,
          .expert = expert};
  slot_of_[expert] = taken;
  ++loading_;
  return taken;
}

int32_t LayerSlots::ClaimForDemand(int32_t expert) {
  const bool prefill = phase_ == Phase::kPrefill;
  const bool ring_is_full = ring_ >= std::max(2, slots() / 4);
  const int32_t taken =
      Take(expert, prefill && ring_is_full ? Among::kRing : Among::kAll);
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
  const int32_t taken = Take(expert, Among::kAll);
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
  loss_known_ = false;
  slot.expected = true;
  ++guesses_;
}

void LayerSlots::FinishLoad(int32_t index, bool ok) {
  Slot& slot = slots_[index];
  CHECK(slot.state == SlotState::kLoading) << "slot " << index;
  loss_known_ = false;
  --loading_;
  if (ok) {
    slot.state = SlotState::kResident;
    ++resident_;
    return;
  }
  slot_of_[slot.expert] = -1;
  guesses_ -= slot.guessed + slot.expected;
  ring_ -= slot.in_ring;
  slot = {.place = slot.place};
}

void LayerSlots::Lease(int32_t index) {
  Slot& slot = slots_[index];
  CHECK(slot.state != SlotState::kEmpty && !slot.leased) << "slot " << index;
  loss_known_ = false;
  slot.leased = true;
}

void LayerSlots::Release(int32_t index) {
  CHECK(slots_[index].leased) << "slot " << index;
  loss_known_ = false;
  slots_[index].leased = false;
}

const SlotLoss& LayerSlots::LeastLoss() {
  if (loss_known_ && loss_rule_ == policy_.rule()) return loss_;
  loss_known_ = true;
  loss_rule_ = policy_.rule();
  // Who knows the future needs no second chance.
  loss_ = {.slot =
               Choose(policy_.kind() == PolicyKind::kBelady ? Among::kAll
                                                            : Among::kNotLast)};
  if (loss_.slot < 0) {
    for (const Slot& slot : slots_) candidates_.push_back(slot.expert);
  } else if (slots_[loss_.slot].state == SlotState::kEmpty) {
    return loss_;
  }
  const int32_t expert =
      loss_.slot < 0 ? policy_.Victim(candidates_) : slots_[loss_.slot].expert;
  loss_.kind = slots_[slot_of_[expert]].cold ? SlotLoss::Kind::kCold
                                             : SlotLoss::Kind::kUsed;
  loss_.score = Score(expert);
  loss_.age = now_ - policy_.LastUseTime(expert);
  return loss_;
}

int32_t LayerSlots::GiveLeast() {
  const int32_t index = LeastLoss().slot;
  CHECK(index >= 0 && slots() > 1) << index << " of " << slots();
  loss_known_ = false;
  Slot& slot = slots_[index];
  Vacate(slot);
  const int32_t place = slot.place;
  ring_ -= slot.in_ring;
  if (index + 1 < slots()) {
    slot = slots_.back();
    if (slot.expert >= 0) slot_of_[slot.expert] = index;
  }
  slots_.pop_back();
  return place;
}

void LayerSlots::Receive(int32_t place) {
  CHECK(slots() < experts()) << slots();
  loss_known_ = false;
  slots_.push_back({.place = place});
}

void LayerSlots::SetScore(int32_t expert, double score) {
  loss_known_ = false;
  policy_.SetScore(expert, score);
}

}  // namespace bullpen
