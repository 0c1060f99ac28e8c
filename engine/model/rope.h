#pragma once

#include <cstdint>
#include <vector>

namespace bullpen {

// How a family stretches its rotary frequencies to longer contexts.
enum class RopeScaling : uint8_t { kNone, kLinear, kYarn, kLlama3 };

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
};

// The rotation of every position: angle = position * frequency, and a factor
// on both cosine and sine.
struct Rope {
  std::vector<float> frequency;  // [rotary_dim / 2]
  float factor = 1;
};

// YaRN: arXiv 2309.00071, as transformers computes it.
Rope MakeRope(const RopeConfig& config);

// YaRN's growth of attention with the stretch: 0.1 * mscale * ln(factor) + 1.
double YarnMscale(double factor, double mscale);

}  // namespace bullpen
