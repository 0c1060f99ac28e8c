#include "engine/experts/prefetch_governor.h"

#include <algorithm>
#include <cmath>

namespace bullpen {
namespace {

constexpr int32_t kWindowSteps = 16;
// What the way before has left behind does not count.
constexpr int32_t kSettlingSteps = 2;
constexpr int32_t kLongPeriod = 64;
constexpr double kDecay = 0.5;  // of what was known, by each new trial
// No trial counts for more than this factor, and trials of the same thing are
// taken to differ by 2 % at least: so no single one changes the choice.
const double kMostLog = std::log(1.035);
constexpr double kLeastDeviation = 0.02;
// Steps that the usual time of one is the mean of. Many beside a window's, so
// that both ways are measured by the same.
constexpr int32_t kUsualSteps = 64;
// A way must be faster by so much, and beyond the mean's error, to be preferred
// instead.
constexpr double kMargin = 0.985;

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

bool PrefetchGovernor::TrialsAreFaster() const {
  const double mean = trial_sum_ / trials_;
  const double variance =
      std::max(trial_squares_ / trials_ - mean * mean, 0.0) +
      kLeastDeviation * kLeastDeviation;
  return mean + std::sqrt(variance / trials_) < std::log(kMargin);
}

void PrefetchGovernor::Judge(double ratio) {
  const double log = std::clamp(std::log(ratio), -kMostLog, kMostLog);
  trials_ = kDecay * trials_ + 1;
  trial_sum_ = kDecay * trial_sum_ + log;
  trial_squares_ = kDecay * trial_squares_ + log * log;
  if (TrialsAreFaster()) {
    preferred_ = !preferred_;
    trial_sum_ = -trial_sum_;
    period_ = kShortPeriod;
  } else {
    period_ = std::min(2 * period_, kLongPeriod);
  }
  until_trial_ = period_;
}

}  // namespace bullpen
