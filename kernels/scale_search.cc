#include "kernels/scale_search.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/panel_format.h"

namespace bullpen::kernels {
namespace {

constexpr int kGroup = 32;
constexpr float kLeast = 1e-15f;  // below this a group is all zeros

// Sums over a group for the least-squares scale of codes q: x ~ scale * q.
struct Fit {
  float xq = 0;
  float qq = 0;

  void Add(float weight, float x, float q) {
    xq += weight * x * q;
    qq += weight * q * q;
  }
  // How much of the weighted square of x the best scale explains, times qq.
  bool Beats(float explained) const {
    return qq > 0 && xq * xq > explained * qq;
  }
};

float ExtremeOf(const float* x, int count) {
  return *std::max_element(x, x + count, [](float a, float b) {
    return std::fabs(a) < std::fabs(b);
  });
}

float Square(float x) { return x * x; }

float MeanSquare(const float* x, int count) {
  float squares = 0;
  for (int i = 0; i < count; ++i) squares += x[i] * x[i];
  return squares / static_cast<float>(count);
}

// What the errors of a group weigh: the importance, if there is any, or x^2.
void Weigh(const float* x, int count, const float* importance, float* weights) {
  for (int i = 0; i < count; ++i) {
    weights[i] = importance != nullptr ? importance[i] : x[i] * x[i];
  }
}

// The weighted error of codes under a scale and a minimum.
float ErrorOf(const float* x, const float* weights, const int* codes,
              Scaled with) {
  float error = 0;
  for (int i = 0; i < kGroup; ++i) {
    error += weights[i] * Square(with.scale * static_cast<float>(codes[i]) -
                                 with.minimum - x[i]);
  }
  return error;
}

// The least-squares scale and minimum for these codes; false if they do not
// determine them.
bool FitCodes(const float* x, const float* weights, const int* codes,
              Scaled& fit) {
  float w = 0, wx = 0, l = 0, l2 = 0, xl = 0;
  for (int i = 0; i < kGroup; ++i) {
    const float code = static_cast<float>(codes[i]);
    w += weights[i];
    wx += weights[i] * x[i];
    l += weights[i] * code;
    l2 += weights[i] * code * code;
    xl += weights[i] * code * x[i];
  }
  const float determinant = w * l2 - l * l;
  if (!(determinant > 0)) return false;
  fit.scale = (w * xl - wx * l) / determinant;
  fit.minimum = -(l2 * wx - l * xl) / determinant;
  if (fit.minimum < 0) {  // It is stored without a sign.
    fit.minimum = 0;
    fit.scale = xl / l2;
  }
  return true;
}

}  // namespace

int NearestInt(float value) { return static_cast<int>(std::nearbyint(value)); }

float SearchScale(const float* x, int count, int half,
                  const float* importance) {
  const float extreme = ExtremeOf(x, count);
  if (std::fabs(extreme) < kLeast) return 0;
  float weights[kGroup];
  Weigh(x, count, importance, weights);
  const auto fit_of = [&](float inverse) {
    Fit fit;
    for (int i = 0; i < count; ++i) {
      const int code = std::clamp(NearestInt(inverse * x[i]), -half, half - 1);
      fit.Add(weights[i], x[i], static_cast<float>(code));
    }
    return fit;
  };
  const float from = static_cast<float>(-half) / extreme;
  Fit best = fit_of(from);
  float scale = best.qq > 0 ? best.xq / best.qq : 0;
  float explained = scale * best.xq;
  for (int step = -9; step <= 9; ++step) {
    if (step == 0) continue;
    const Fit fit =
        fit_of(-(static_cast<float>(half) + 0.1f * static_cast<float>(step)) /
               extreme);
    if (!fit.Beats(explained)) continue;
    scale = fit.xq / fit.qq;
    explained = scale * fit.xq;
  }
  return scale;
}

Scaled SearchScaleAndMinimum(const float* x, int most,
                             const float* importance) {
  float weights[kGroup];
  const float root = std::sqrt(MeanSquare(x, kGroup));
  for (int i = 0; i < kGroup; ++i) {
    weights[i] = importance != nullptr ? importance[i] : root + std::fabs(x[i]);
  }

  const float least = std::min(0.0f, *std::min_element(x, x + kGroup));
  const float range = *std::max_element(x, x + kGroup) - least;
  if (!(range > kLeast)) return {0, -least};
  int codes[kGroup];
  const auto code_with = [&](float inverse) {
    for (int i = 0; i < kGroup; ++i) {
      codes[i] = std::clamp(NearestInt(inverse * (x[i] - least)), 0, most);
    }
  };
  const float top = static_cast<float>(most);
  code_with(top / range);
  Scaled best = {range / top, -least};
  float least_error = ErrorOf(x, weights, codes, best);
  // Codes that reach a little less or more than the extremes.
  const float first = most > 15 ? -0.5f : -1.0f;
  const int steps = most > 15 ? 15 : 20;
  for (int step = 0; step <= steps; ++step) {
    code_with((first + 0.1f * static_cast<float>(step) + top) / range);
    Scaled fit;
    if (!FitCodes(x, weights, codes, fit)) continue;
    const float error = ErrorOf(x, weights, codes, fit);
    if (error < least_error) {
      least_error = error;
      best = fit;
    }
  }
  return best;
}

int NearestIq4(float x) {
  const int8_t* end = kIq4Values + 16;
  const int8_t* above =
      std::lower_bound(kIq4Values, end, x, [](int8_t value, float wanted) {
        return static_cast<float>(value) < wanted;
      });
  if (above == kIq4Values) return 0;
  if (above == end) return 15;
  const bool lower =
      x - static_cast<float>(above[-1]) < static_cast<float>(above[0]) - x;
  return static_cast<int>(above - kIq4Values) - (lower ? 1 : 0);
}

float SearchIq4Scale(const float* x, const float* importance) {
  const float extreme = ExtremeOf(x, kGroup);
  if (std::fabs(extreme) < kLeast) return 0;
  float weights[kGroup];
  Weigh(x, kGroup, importance, weights);
  const auto fit_of = [&](float inverse) {
    Fit fit;
    for (int i = 0; i < kGroup; ++i) {
      const float value =
          static_cast<float>(kIq4Values[NearestIq4(inverse * x[i])]);
      fit.Add(weights[i], x[i], value);
    }
    return fit;
  };
  const float low = static_cast<float>(kIq4Values[0]);
  Fit best = fit_of(-low / extreme);
  float d = best.qq > 0 ? best.xq / best.qq : 0;
  float explained = d * best.xq;
  for (int step = -7; step <= 7; ++step) {
    const Fit fit = fit_of((low + static_cast<float>(step)) / extreme);
    if (!fit.Beats(explained)) continue;
    d = fit.xq / fit.qq;
    explained = d * fit.xq;
  }
  return d;
}

}  // namespace bullpen::kernels
