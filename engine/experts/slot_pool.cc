#include "engine/experts/slot_pool.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace bullpen {
namespace {

// Decayed scores of two layers may differ by rounding where they would be
// equal.
constexpr double kRounding = 1e-9;

bool IsLess(double a, double b) {
  return a < b && b - a > kRounding * std::abs(b);
}

bool MattersLess(const SlotLoss& a, const SlotLoss& b) {
  if (a.kind != b.kind) return a.kind < b.kind;
  if (IsLess(a.score, b.score)) return true;
  return !IsLess(b.score, a.score) && a.age > b.age;
}

}  // namespace

SlotPool::SlotPool(std::span<const LayerShape> layers, PolicyConfig policy) {
  policy.choice = &rule_;
  policy.layers = static_cast<int32_t>(layers.size());
  slots_move_ = std::ranges::any_of(
      layers, [](const LayerShape& l) { return l.floor < l.slots; });
  layers_.reserve(layers.size());
  for (const LayerShape& shape : layers) {
    CHECK(shape.floor >= 1 && shape.floor <= shape.slots)
        << "floor " << shape.floor << " of " << shape.slots << " slots";
    policy.slots_move = shape.floor < shape.slots;
    layers_.push_back(
        {.slots = LayerSlots(shape.experts, shape.slots, policy, slots_),
         .share = shape.slots,
         .floor = shape.floor,
         .blob_bytes = shape.blob_bytes});
    slots_ += shape.slots;
  }
}

void SlotPool::BeginStep(int32_t layer, int32_t tokens, Phase phase) {
  running_ = layer;
  phase_ = phase;
  layers_[layer].slots.BeginStep(tokens, phase);
}

int32_t SlotPool::ClaimForDemand(ExpertKey key) {
  return Claim(key, &LayerSlots::ClaimForDemand);
}

int32_t SlotPool::ClaimForGuess(ExpertKey key) {
  return Claim(key, &LayerSlots::ClaimForGuess);
}

int32_t SlotPool::Claim(ExpertKey key, int32_t (LayerSlots::*claim)(int32_t)) {
  MoveSlotTo(key.layer);
  LayerSlots& home = layers_[key.layer].slots;
  const int32_t slot = (home.*claim)(key.expert);
  if (giver_ < 0) evicted_ = {.layer = key.layer, .expert = home.evicted()};
  return slot;
}

// So that the claim finds it empty, if another layer can spare one better.
void SlotPool::MoveSlotTo(int32_t home) {
  giver_ = -1;
  if (!slots_move_ || phase_ == Phase::kPrefill) return;
  if (!layers_[home].slots.full()) return;
  giver_ = FindGiver(home);
  if (giver_ < 0) return;
  LayerSlots& giver = layers_[giver_].slots;
  layers_[home].slots.Receive(giver.GiveLeast());
  evicted_ = {.layer = giver_, .expert = giver.evicted()};
}

int32_t SlotPool::FindGiver(int32_t home) {
  int32_t best = home;
  int32_t other = home;
  for (int32_t i = 1; i < layers(); ++i) {
    other = other == 0 ? layers() - 1 : other - 1;
    Layer& layer = layers_[other];
    if (other == running_ || layer.slots.slots() <= layer.floor ||
        layer.blob_bytes != layers_[home].blob_bytes) {
      continue;
    }
    const SlotLoss& loss = layer.slots.LeastLoss();
    if (loss.slot >= 0 && MattersLess(loss, layers_[best].slots.LeastLoss())) {
      best = other;
    }
  }
  return best == home ? -1 : best;
}

}  // namespace bullpen
