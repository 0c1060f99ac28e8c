#include "engine/experts/prefetch_governor.h"

#include <algorithm>

namespace bullpen {
namespace {

constexpr int32_t kWindowSteps = 16;
// What the way before has left behind does not count.
constexpr int32_t kSettlingSteps = 2;
constexpr int32_t kShortPeriod = 4;
constexpr int32_t kLongPeriod = 64;
constexpr double kDecay = 0.5;  // of what was known, by each new window
// A way must be faster by so much to be preferred instead.
constexpr double kMargin = 0.98;

}  // namespace

void PrefetchGovernor::EndStep(double seconds, int32_t rows) {
  if (++steps_ > kSettlingSteps) {
    window_seconds_ += seconds;
    window_rows_ += rows;
  }
  if (steps_ == kSettlingSteps + kWindowSteps) EndWindow();
}

void PrefetchGovernor::EndWindow() {
  double& known = seconds_[on()];
  const double seen =
      window_seconds_ / static_cast<double>(std::max<int64_t>(window_rows_, 1));
  known = known == 0 ? seen : kDecay * known + (1 - kDecay) * seen;
  steps_ = 0;
  window_seconds_ = 0;
  window_rows_ = 0;
  if (!trial_) {
    trial_ = --until_trial_ <= 0;
    return;
  }
  trial_ = false;
  if (seconds_[!preferred_] < kMargin * seconds_[preferred_]) {
    preferred_ = !preferred_;
    period_ = kShortPeriod;
  } else if (seconds_[preferred_] > 0) {
    period_ = std::min(2 * period_, kLongPeriod);
  }
  until_trial_ = period_;
}

}  // namespace bullpen
