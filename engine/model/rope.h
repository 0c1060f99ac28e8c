#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace bullpen {

// How a family stretches its rotary frequencies to longer contexts.
enum class RopeScaling : uint8_t { kNone, kLinear, kYarn, kLlama3, kLong };

struct RopeConfig {
  double theta = 10000;
  int32_t rotary_dim = 0;
  bool interleaved = false;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1;
  double original_context = 0;  // of training, before the stretch
  double beta_fast = 32;        // yarn
  double beta_slow = 1;
  bool truncate = true;
  double mscale = 0;  // 0 = not given
  double mscale_all_dim = 0;
  double attention_factor = 0;
  double low_freq_factor = 1;  // llama3
  double high_freq_factor = 4;
  // longrope (arXiv 2402.13753): what each frequency is divided by, in the
  // original context and beyond it, and what cosines and sines are multiplied
  // by. See Rope.
  std::vector<double> short_divisors = {};
  std::vector<double> long_divisors = {};
  double short_mscale = 1;
  double long_mscale = 1;
};

// The rotation of every position: angle = position * frequency, and a factor
// on both cosine and sine.
struct Rotation {
  std::vector<float> frequency;  // [rotary_dim / 2]
  float factor = 1;
};

// One rotation for all positions, or two of longrope. A sequence whose prompt
// is longer than `late_from`, the original context, is late at all positions:
// transformers takes the long factors for a whole forward pass beyond it. One
// that grows beyond it afterwards is late from there on and keeps the keys it
// has, as models do over transformers' cache. So the length of the prompt alone
// decides, not how it is cut, nor what is computed again.
struct Rope {
  Rotation early;
  Rotation late;
  int64_t late_from = std::numeric_limits<int64_t>::max();

  // Of a sequence whose prompt has so many tokens.
  const Rotation& at(int64_t position, int64_t prompt) const {
    return std::max(position, prompt - 1) < late_from ? early : late;
  }
};

// YaRN: arXiv 2309.00071, as transformers computes it.
Rope MakeRope(const RopeConfig& config);

// YaRN's growth of attention with the stretch: 0.1 * mscale * ln(factor) + 1.
double YarnMscale(double factor, double mscale);

}  // namespace bullpen
