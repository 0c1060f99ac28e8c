#pragma once

#include <cstdint>
#include <vector>

#include "engine/experts/expert.h"
#include "engine/experts/policy.h"

namespace bullpen {

enum class SlotState : uint8_t { kEmpty, kLoading, kResident };

// What a layer would lose with the slot that it can spare best.
struct SlotLoss {
  enum class Kind : uint8_t {
    kNone,  // an empty slot
    kCold,  // a guess that its layer did not use
    kUsed,
  };
  int32_t slot = -1;  // -1: none may be taken now
  // Of that slot; if none may be taken, of the least of all that are held.
  Kind kind = Kind::kNone;
  double score = 0;  // EvictionPolicy's
  int64_t age = 0;   // tokens of its layer since its last use
};

// The slots of one layer: which expert each holds, and which goes next. A slot
// goes Empty -> Loading -> Resident -> Empty (or Loading -> Empty when the load
// fails). Pure: it moves no bytes and knows no clock; the live cache and the
// trace simulator run this same code. See SlotPool, which moves slots from one
// layer to another.
class LayerSlots {
 public:
  // 1 <= slots <= experts. The slots are at places first_place and on.
  LayerSlots(int32_t experts, int32_t slots, const PolicyConfig& policy,
             int32_t first_place = 0);

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
  // Whose slot the last claim or Give took; -1: it was empty, or there was no
  // such call.
  int32_t evicted() const { return evicted_; }
  // The load has ended. A failed one leaves the slot empty and unleased.
  void FinishLoad(int32_t slot, bool ok);

  // A leased slot is never a victim.
  void Lease(int32_t slot);
  void Release(int32_t slot);

  // By the policy's rule among those that a claim could take, an empty one
  // first, but not what the layer's last step used: the next one is likely to
  // use some of it again, and must not find it gone for the sake of the layers
  // between.
  const SlotLoss& LeastLoss();
  // Gives up that slot and returns its place. The layer's last slot has that
  // slot's number from now on.
  int32_t GiveLeast();
  // One more slot: empty, and the last. Fewer than one for each expert so far.
  void Receive(int32_t place);

  // As the policy has it now.
  double Score(int32_t expert) const { return policy_.Score(expert, now_); }
  void SetScore(int32_t expert, double score);
  // -1: in no slot.
  int32_t Find(int32_t expert) const { return slot_of_[expert]; }
  SlotState state(int32_t slot) const { return slots_[slot].state; }
  int32_t expert(int32_t slot) const { return slots_[slot].expert; }
  bool leased(int32_t slot) const { return slots_[slot].leased; }
  // Where its bytes are, a number of the whole cache; moves with the slot.
  int32_t place(int32_t slot) const { return slots_[slot].place; }
  int32_t slots() const { return static_cast<int32_t>(slots_.size()); }
  int32_t experts() const { return static_cast<int32_t>(slot_of_.size()); }
  int32_t loading() const { return loading_; }
  int32_t resident() const { return resident_; }
  bool full() const { return loading_ + resident_ == slots(); }
  const EvictionPolicy& policy() const { return policy_; }

 private:
  struct Slot {
    int32_t place = 0;
    SlotState state = SlotState::kEmpty;
    bool leased = false;    // by the step that runs
    bool guessed = false;   // leased by a guess whose layer has not run
    bool expected = false;  // resident, and guessed for the step to come
    bool cold = false;      // a guess that its layer did not use
    bool in_ring = false;   // taken by this prefill step
    int32_t expert = -1;
  };
  // Which of the slots that hold an expert and are free a search looks at.
  enum class Among : uint8_t {
    kAll,
    kRing,     // of this prefill step
    kNotLast,  // not those that the layer's last step used
  };
  int32_t Choose(Among among);
  bool IsAmong(const Slot& slot, Among among) const;
  void Vacate(Slot& slot);
  int32_t Take(int32_t expert, Among among);

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
  // LeastLoss, while nothing has changed since.
  SlotLoss loss_;
  bool loss_known_ = false;
  size_t loss_rule_ = 0;  // under which it was found
};

}  // namespace bullpen
