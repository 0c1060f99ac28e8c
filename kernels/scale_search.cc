#include "kernels/scale_search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "base/vector_clones.h"
#include "kernels/panel_format.h"

namespace bullpen::kernels {
namespace {

constexpr int kGroup = 32;
constexpr float kLeast = 1e-15f;  // below this a group is all zeros

// Sums run in lanes, so that compilers make vectors of them.
constexpr int kLanes = 8;
using Lanes = float[kLanes];

float Total(const Lanes& lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

float Clamped(float value, float least, float most) {
  return std::min(std::max(least, value), most);
}

// Sums over a group for the least-squares scale of codes q: x ~ scale * q.
struct Fit {
  Lanes xq = {};
  Lanes qq = {};

  void Add(int lane, float weight, float x, float q) {
    xq[lane] += weight * x * q;
    qq[lane] += weight * q * q;
  }
};

// The best scale so far. How much of the weighted square of x one explains
// tells how good it is.
struct BestScale {
  float scale = 0;
  float explained = 0;

  void Try(const Fit& fit) {
    const float xq = Total(fit.xq), qq = Total(fit.qq);
    if (!(qq > 0 && xq * xq > explained * qq)) return;
    scale = xq / qq;
    explained = scale * xq;
  }
};

float ExtremeOf(const float* x, int count) {
  return *std::max_element(x, x + count, [](float a, float b) {
    return std::fabs(a) < std::fabs(b);
  });
}

float Square(float x) { return x * x; }

// What the errors of a group weigh: the importance, if there is any, or x^2.
void Weigh(const float* x, int count, const float* importance, float* weights) {
  for (int i = 0; i < count; ++i) {
    weights[i] = importance != nullptr ? importance[i] : x[i] * x[i];
  }
}

// The weighted error of codes under a scale and a minimum.
float ErrorOf(const float* x, const float* weights, const float* codes,
              Scaled with) {
  Lanes error = {};
  for (int i = 0; i < kGroup; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      error[l] += weights[i + l] *
                  Square(with.scale * codes[i + l] - with.minimum - x[i + l]);
    }
  }
  return Total(error);
}

// What all codes of a group have in common: the sums of its weights, and of
// those times x.
struct Weighted {
  float w, wx;
};

Weighted SumWeights(const float* x, const float* weights) {
  Lanes w_sum = {}, wx_sum = {};
  for (int i = 0; i < kGroup; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      w_sum[l] += weights[i + l];
      wx_sum[l] += weights[i + l] * x[i + l];
    }
  }
  return {Total(w_sum), Total(wx_sum)};
}

// The least-squares scale and minimum for these codes; false if they do not
// determine them.
bool FitCodes(const float* x, const float* weights, Weighted sums,
              const float* codes, Scaled& fit) {
  Lanes l_sum = {}, l2_sum = {}, xl_sum = {};
  for (int i = 0; i < kGroup; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float weight = weights[i + l], code = codes[i + l];
      l_sum[l] += weight * code;
      l2_sum[l] += weight * code * code;
      xl_sum[l] += weight * code * x[i + l];
    }
  }
  const auto [w, wx] = sums;
  const float l = Total(l_sum), l2 = Total(l2_sum), xl = Total(xl_sum);
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

// Neighbours of kIq4Values are more than one apart. So where numbers with one
// integral part get two codes, they are this and the next, from `middle` on.
struct Iq4Cell {
  int32_t code;
  float middle;
};
constexpr int kIq4Least = -128;
constexpr auto kIq4Cells = [] {
  std::array<Iq4Cell, 256> cells{};
  for (int i = 0; i < 256; ++i) {
    const float least = static_cast<float>(kIq4Least + i);
    int code = 0;
    float middle = 0;
    for (; code < 15; ++code) {
      middle = static_cast<float>(kIq4Values[code] + kIq4Values[code + 1]) / 2;
      if (least < middle) break;
    }
    cells[i] = {code, code < 15 ? middle : 1e30f};
  }
  return cells;
}();

}  // namespace

BULLPEN_VECTOR_CLONES
float SearchScale(const float* x, int count, int half,
                  const float* importance) {
  const float extreme = ExtremeOf(x, count);
  if (std::fabs(extreme) < kLeast) return 0;
  float weights[kGroup];
  Weigh(x, count, importance, weights);
  const float top = static_cast<float>(half);
  BestScale best;
  const auto consider = [&](float inverse) {
    Fit fit;
    for (int i = 0; i < count; i += kLanes) {
      for (int l = 0; l < kLanes; ++l) {
        const float code = Clamped(Nearest(inverse * x[i + l]), -top, top - 1);
        fit.Add(l, weights[i + l], x[i + l], code);
      }
    }
    best.Try(fit);
  };
  consider(-top / extreme);
  for (int step = -9; step <= 9; ++step) {
    if (step != 0) consider(-(top + 0.1f * static_cast<float>(step)) / extreme);
  }
  return best.scale;
}

BULLPEN_VECTOR_CLONES
Scaled SearchScaleAndMinimum(const float* x, int most,
                             const float* importance) {
  float squares = 0;
  for (int i = 0; i < kGroup; ++i) squares += x[i] * x[i];
  const float root = std::sqrt(squares / kGroup);
  float weights[kGroup];
  for (int i = 0; i < kGroup; ++i) {
    weights[i] = importance != nullptr ? importance[i] : root + std::fabs(x[i]);
  }

  const float least = std::min(0.0f, *std::min_element(x, x + kGroup));
  const float range = *std::max_element(x, x + kGroup) - least;
  if (!(range > kLeast)) return {0, -least};
  const float top = static_cast<float>(most);
  const Weighted sums = SumWeights(x, weights);
  float codes[kGroup];
  const auto code_with = [&](float inverse) {
    for (int i = 0; i < kGroup; ++i) {
      codes[i] = Clamped(Nearest(inverse * (x[i] - least)), 0, top);
    }
  };
  code_with(top / range);
  Scaled best = {range / top, -least};
  float least_error = ErrorOf(x, weights, codes, best);
  // Codes that reach a little less or more than the extremes.
  const float first = most > 15 ? -0.5f : -1.0f;
  const int steps = most > 15 ? 15 : 20;
  for (int step = 0; step <= steps; ++step) {
    code_with((first + 0.1f * static_cast<float>(step) + top) / range);
    Scaled fit;
    if (!FitCodes(x, weights, sums, codes, fit)) continue;
    const float error = ErrorOf(x, weights, codes, fit);
    if (error < least_error) {
      least_error = error;
      best = fit;
    }
  }
  return best;
}

int NearestIq4(float x) {
  const int cell = static_cast<int>(Clamped(x, -128, 127) + 128.0f);
  const Iq4Cell& found = kIq4Cells[cell];
  return found.code + (x >= found.middle ? 1 : 0);
}

BULLPEN_VECTOR_CLONES
float SearchIq4Scale(const float* x, const float* importance) {
  const float extreme = ExtremeOf(x, kGroup);
  if (std::fabs(extreme) < kLeast) return 0;
  float weights[kGroup];
  Weigh(x, kGroup, importance, weights);
  BestScale best;
  const auto consider = [&](float inverse) {
    float values[kGroup];
    for (int i = 0; i < kGroup; ++i) {
      values[i] = static_cast<float>(kIq4Values[NearestIq4(inverse * x[i])]);
    }
    Fit fit;
    for (int i = 0; i < kGroup; i += kLanes) {
      for (int l = 0; l < kLanes; ++l) {
        fit.Add(l, weights[i + l], x[i + l], values[i + l]);
      }
    }
    best.Try(fit);
  };
  const float low = static_cast<float>(kIq4Values[0]);
  consider(-low / extreme);
  for (int step = -7; step <= 7; ++step) {
    consider((low + static_cast<float>(step)) / extreme);
  }
  return best.scale;
}

}  // namespace bullpen::kernels
