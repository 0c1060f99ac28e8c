#pragma once

#include <array>
#include <cstdint>

#include "engine/experts/evidence.h"

namespace bullpen {

// Where the time of guessing goes: to each kind of evidence, or to what weighs
// all kinds and learns from how it turned out. Reads a clock only while it
// watches, since that costs as much as some of what it measures. One thread.
class CostMeter {
 public:
  using Now = double (*)();                             // in seconds
  static constexpr int32_t kCombined = kEvidenceKinds;  // behind the kinds
  static constexpr int32_t kAccounts = kEvidenceKinds + 1;

  explicit CostMeter(Now now = nullptr) : now_(now) {}

  void Watch(bool on) { on_ = on && now_ != nullptr; }
  void Start() {
    if (on_) last_ = now_();
  }
  // The time since the call before.
  void Charge(Evidence kind) { Charge(static_cast<int32_t>(kind)); }
  void ChargeCombined() { Charge(kCombined); }

  // By kind, then kCombined.
  double seconds(int32_t account) const { return seconds_[account]; }

 private:
  void Charge(int32_t account) {
    if (!on_) return;
    const double now = now_();
    seconds_[account] += now - last_;
    last_ = now;
  }

  Now now_;
  bool on_ = false;
  double last_ = 0;
  std::array<double, kAccounts> seconds_ = {};
};

}  // namespace bullpen
