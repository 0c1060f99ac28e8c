#include "engine/experts/prefetch_rule.h"

#include <algorithm>

namespace bullpen {
namespace {

constexpr double kDecay = 0.9;  // of the measurements, by each step
// Experts that may wait for the link while nothing was measured yet: about what
// a token uses of a layer.
constexpr double kFirstExperts = 8;
// What a wholly busy link adds to the least probability of a guess.
constexpr double kBusyProbability = 0.35;

void Average(double& known, double seen) {
  known = known == 0 ? seen : kDecay * known + (1 - kDecay) * seen;
}

}  // namespace

void PrefetchRule::EndStep(const Step& step) {
  if (step.seconds <= 0 || step.layers <= 0) return;
  Average(layer_seconds_,
          std::max(step.seconds - step.stall_seconds, 0.0) / step.layers);
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

double PrefetchRule::LeastProbability(double on_an_idle_link) const {
  return on_an_idle_link + kBusyProbability * link_use_;
}

}  // namespace bullpen
