#include "engine/model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace bullpen {
namespace {

// The dimension whose wave turns `turns` times within the original context.
double YarnDimension(const RopeConfig& config, double turns) {
  return config.rotary_dim *
         std::log(config.original_context / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(config.theta));
}

void StretchYarn(const RopeConfig& config, std::vector<double>& frequency) {
  double low = YarnDimension(config, config.beta_fast);
  double high = YarnDimension(config, config.beta_slow);
  if (config.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, config.rotary_dim - 1.0);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequency.size(); ++i) {
    const double ramp =
        std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequency[i] =
        frequency[i] / config.factor * ramp + frequency[i] * (1 - ramp);
  }
}

void StretchLlama3(const RopeConfig& config, std::vector<double>& frequency) {
  for (double& f : frequency) {
    const double wavelength = 2 * std::numbers::pi / f;
    if (wavelength < config.original_context / config.high_freq_factor) {
      continue;
    }
    if (wavelength > config.original_context / config.low_freq_factor) {
      f /= config.factor;
      continue;
    }
    const double smooth =
        (config.original_context / wavelength - config.low_freq_factor) /
        (config.high_freq_factor - config.low_freq_factor);
    f = (1 - smooth) * f / config.factor + smooth * f;
  }
}

Rotation Divide(const std::vector<double>& frequency,
                const std::vector<double>& divisors, double mscale) {
  Rotation rotation{.frequency = {}, .factor = static_cast<float>(mscale)};
  for (size_t i = 0; i < frequency.size(); ++i) {
    rotation.frequency.push_back(
        static_cast<float>(frequency[i] / divisors[i]));
  }
  return rotation;
}

double YarnFactor(const RopeConfig& config) {
  if (config.attention_factor > 0) return config.attention_factor;
  if (config.mscale > 0 && config.mscale_all_dim > 0) {
    return YarnMscale(config.factor, config.mscale) /
           YarnMscale(config.factor, config.mscale_all_dim);
  }
  return YarnMscale(config.factor, 1);
}

}  // namespace

double YarnMscale(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

Rope MakeRope(const RopeConfig& config) {
  std::vector<double> frequency;
  for (int32_t i = 0; i < config.rotary_dim / 2; ++i) {
    frequency.push_back(1 /
                        std::pow(config.theta, 2.0 * i / config.rotary_dim));
  }
  Rope rope;
  switch (config.scaling) {
    case RopeScaling::kNone:
      break;
    case RopeScaling::kLinear:
      for (double& f : frequency) f /= config.factor;
      break;
    case RopeScaling::kYarn:
      StretchYarn(config, frequency);
      rope.early.factor = static_cast<float>(YarnFactor(config));
      break;
    case RopeScaling::kLlama3:
      StretchLlama3(config, frequency);
      break;
    case RopeScaling::kLong:
      rope.early =
          Divide(frequency, config.short_divisors, config.short_mscale);
      rope.late = Divide(frequency, config.long_divisors, config.long_mscale);
      rope.late_from = static_cast<int64_t>(config.original_context);
      return rope;
  }
  rope.early.frequency.assign(frequency.begin(), frequency.end());
  return rope;
}

}  // namespace bullpen
