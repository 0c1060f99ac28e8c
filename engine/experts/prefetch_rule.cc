#include "engine/experts/prefetch_rule.h"

#include <algorithm>
#include <cmath>

#include "engine/experts/transfer.h"

namespace bullpen {
namespace {

constexpr double kDecay = 0.9;  // of the measurements, by each step
// Experts that may wait for the link while nothing was measured yet: about what
// a token uses of a layer.
constexpr double kFirstExperts = 8;
// Of what became of guesses, by each step: those that were stopped are tried
// again after some tens of steps.
constexpr double kTrustDecay = 0.98;
// Uses that are taken to have come as expected.
constexpr double kTrustedUses = 2;
// What a wrong guess costs: a demand waits for half of its chunk in each
// transfer thread, and what comes after that demand waits too; and one in so
// many of those whose slots were taken is missed.
constexpr double kChunksWaited = 4.0 / 3;
constexpr double kTakenPerMiss = 6;

void Average(double& known, double seen) {
  known = known == 0 ? seen : kDecay * known + (1 - kDecay) * seen;
}

}  // namespace

void PrefetchRule::EndStep(const Step& step) {
  if (step.seconds <= 0 || step.layers <= 0) return;
  uses_expected_ = kTrustDecay * uses_expected_ + step.uses_expected;
  uses_ = kTrustDecay * uses_ + step.uses;
  Average(free_seconds_,
          std::max(step.seconds - step.demand_seconds, 0.0) / step.layers);
  if (step.busy_seconds > 0) {
    Average(link_rate_, static_cast<double>(step.bytes) / step.busy_seconds);
  }
}

double PrefetchRule::Room(int32_t horizon, int64_t blob_bytes,
                          int64_t under_way) const {
  const double room = link_rate_ > 0
                          ? horizon * free_seconds_ * link_rate_
                          : kFirstExperts * static_cast<double>(blob_bytes);
  return room - static_cast<double>(under_way);
}

// What is in no slot is used less often than its probability says, as who is
// likely is there already: so it is scaled by what became of those before.
double PrefetchRule::Trust() const {
  return std::min((uses_ + kTrustedUses) / (uses_expected_ + kTrustedUses),
                  1.0);
}

// One that is right saves the demand what it has moved until then.
double PrefetchRule::Worth(double probability, int64_t blob_bytes,
                           double room) const {
  if (std::isinf(room)) return probability;
  const double likely = probability * Trust();
  if (likely < min_probability_) return 0;
  const double bytes = static_cast<double>(blob_bytes);
  const double chunk = static_cast<double>(GuessChunkBytes(blob_bytes));
  const double cost = kChunksWaited * chunk + bytes / kTakenPerMiss;
  return (likely * std::min(room, bytes) - (1 - likely) * cost) / bytes;
}

double PrefetchRule::Load(std::span<const ExpertGuess> guesses,
                          const Layer& layer) const {
  double room = layer.room;
  double uses = 0;
  size_t kept = 0;
  for (const ExpertGuess& guess : guesses) {
    const double worth = Worth(guess.probability, layer.blob_bytes, room);
    if (worth <= 0) break;
    for (; kept < guesses.size() && guesses[kept].probability >= worth;
         ++kept) {
      layer.keep(guesses[kept].expert);
    }
    if (layer.keep(guess.expert)) continue;
    if (!layer.load(guess.expert)) break;
    uses += guess.probability;
    room -= static_cast<double>(layer.blob_bytes);
  }
  return uses;
}

}  // namespace bullpen
