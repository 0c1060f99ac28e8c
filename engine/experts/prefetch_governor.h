#pragma once

#include <array>
#include <cstdint>

namespace bullpen {

// Decides whether loading ahead pays, by trying: most windows of decode steps
// run the way that was faster of late, now and then one runs the other way.
// Trials get rarer while they confirm the choice, so that the slower way costs
// little. Pure: the caller measures the time. One thread.
class PrefetchGovernor {
 public:
  // Whether the step that begins should load ahead.
  bool on() const { return trial_ ? !preferred_ : preferred_; }

  // A decode step of `rows` tokens took so long.
  void EndStep(double seconds, int32_t rows);

 private:
  void EndWindow();

  bool preferred_ = true;
  bool trial_ = true;  // first a window without, then some with
  // Seconds per token of [off, on], decayed; 0: not known.
  std::array<double, 2> seconds_ = {};
  // The window at hand.
  int32_t steps_ = 0;
  double window_seconds_ = 0;
  int64_t window_rows_ = 0;
  // Windows until the next trial, and between two.
  int32_t until_trial_ = 0;
  int32_t period_ = 4;
};

}  // namespace bullpen
