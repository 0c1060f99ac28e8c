#pragma once

#include <array>
#include <cstdint>

namespace bullpen {

// Decides whether loading ahead pays, by trying: most windows of decode steps
// run the way that was faster of late, now and then one runs the other way and
// is judged by the windows before and after it, as what is computed, and how
// well the cache serves it, drifts. Trials get rarer while they confirm the
// choice, so that the slower way costs little; and they must agree before it is
// changed, as a window of another text may be many times faster. A step's time
// is taken in relation to what steps of as many tokens took of late, so that
// the batch may change as it likes. Pure: the caller measures the time. One
// thread.
class PrefetchGovernor {
 public:
  // Steps of more tokens are not judged: they load nothing ahead.
  static constexpr int32_t kMaxRows = 16;

  // Whether the step that begins should load ahead.
  bool on() const { return trial_ ? !preferred_ : preferred_; }

  // A decode step of `rows` tokens took so long.
  void EndStep(double seconds, int32_t rows);

 private:
  static constexpr int32_t kShortPeriod = 8;

  void EndWindow();
  void Judge(double ratio);
  bool TrialsAreFaster() const;

  bool preferred_ = true;
  bool trial_ = false;
  // Of the steps of one number of tokens.
  struct Usual {
    double seconds = 0;  // decayed mean
    int32_t steps = 0;   // that it is of, as far as they are counted
  };
  std::array<Usual, kMaxRows> usual_ = {};  // by tokens, from 1
  // Of trials: logarithms of their seconds over those of the windows around
  // them, how many, their sum and that of their squares, decayed.
  double trials_ = 0;
  double trial_sum_ = 0;
  double trial_squares_ = 0;
  // Seconds over usual seconds: of the window before the trial, and of a trial
  // that is not judged yet (0: none).
  double before_ = 0;
  double tried_ = 0;
  // The window at hand.
  int32_t steps_ = 0;
  double window_seconds_ = 0;
  double window_usual_ = 0;
  // Windows until the next trial, and between two. The very first one fills
  // the cache, which takes its time, and is compared with no other.
  int32_t until_trial_ = 2;
  int32_t period_ = kShortPeriod;
};

}  // namespace bullpen
