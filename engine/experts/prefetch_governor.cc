#include "engine/experts/prefetch_governor.h"

#include <algorithm>

namespace bullpen {
namespace {

constexpr int32_t kWindowSteps = 16;
// What the way before has left behind does not count.
constexpr int32_t kSettlingSteps = 2;
constexpr int32_t kLongPeriod = 64;
constexpr double kDecay = 0.5;  // of what was known, by each new trial
// Steps that the usual time of one is the mean of. Many beside a window's, so
// that both ways are measured by the same.
constexpr int32_t kUsualSteps = 64;
// A way must be faster by so much to be preferred instead.
constexpr double kMargin = 0.98;

}  // namespace

void PrefetchGovernor::EndStep(double seconds, int32_t rows) {
  if (rows < 1 || rows > kMaxRows) return;
  Usual& usual = usual_[rows - 1];
  // A trial is not usual, unless there is nothing better.
  if (!trial_ || usual.steps < kWindowSteps) {
    if (usual.steps < kUsualSteps) ++usual.steps;
    usual.seconds += (seconds - usual.seconds) / usual.steps;
  }
  if (++steps_ > kSettlingSteps) {
    window_seconds_ += seconds;
    window_usual_ += usual.seconds;
  }
  if (steps_ == kSettlingSteps + kWindowSteps) EndWindow();
}

void PrefetchGovernor::EndWindow() {
  const double seen = window_usual_ > 0 ? window_seconds_ / window_usual_ : 1;
  steps_ = 0;
  window_seconds_ = 0;
  window_usual_ = 0;
  if (trial_) {
    trial_ = false;
    tried_ = seen;
    return;
  }
  if (tried_ > 0) {
    Judge(tried_ / (0.5 * (before_ + seen)));
    tried_ = 0;
  }
  before_ = seen;
  trial_ = --until_trial_ <= 0;
}

void PrefetchGovernor::Judge(double ratio) {
  trial_ratio_ =
      trial_ratio_ == 0 ? ratio : kDecay * trial_ratio_ + (1 - kDecay) * ratio;
  if (trial_ratio_ < kMargin) {
    preferred_ = !preferred_;
    trial_ratio_ = 1 / trial_ratio_;
    period_ = kShortPeriod;
  } else {
    period_ = std::min(2 * period_, kLongPeriod);
  }
  until_trial_ = period_;
}

}  // namespace bullpen
