#include "engine/experts/prefetch_rule.h"

#include <algorithm>

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

void Average(double& known, double seen) {
  known = known == 0 ? seen : kDecay * known + (1 - kDecay) * seen;
}

}  // namespace

void PrefetchRule::EndStep(const Step& step) {
  if (step.seconds <= 0 || step.layers <= 0) return;
  Average(layer_seconds_,
          std::max(step.seconds - step.stall_seconds, 0.0) / step.layers);
  uses_expected_ = kTrustDecay * uses_expected_ + step.uses_expected;
  uses_ = kTrustDecay * uses_ + step.uses;
  Average(link_use_, std::min(step.busy_seconds / step.seconds, 1.0));
  if (step.busy_seconds > 0) {
    Average(link_rate_, static_cast<double>(step.bytes) / step.busy_seconds);
  }
}

double PrefetchRule::Room(int32_t horizon, int64_t blob_bytes,
                          int64_t under_way) const {
  const bool measured = link_rate_ > 0 && layer_seconds_ > 0;
  const double room = measured
                          ? horizon * layer_seconds_ * link_rate_
                          : kFirstExperts * static_cast<double>(blob_bytes);
  return room - static_cast<double>(under_way);
}

// Where the link would be idle, with probability 1 - use, a guess that is right
// with probability p saves p loads; where it would not, it costs 1 - p. It pays
// if p > use. But what is in no slot is used less often than its probability
// says, as who is likely is there already: so it is scaled by what became of
// those before.
double PrefetchRule::LeastProbability(double on_an_idle_link) const {
  const double trust =
      std::min((uses_ + kTrustedUses) / (uses_expected_ + kTrustedUses), 1.0);
  return std::max(on_an_idle_link, link_use_) / trust;
}

}  // namespace bullpen
