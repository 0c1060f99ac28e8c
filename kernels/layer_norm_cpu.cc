#include <cmath>

#include "kernels/oracle.h"

namespace bullpen::kernels::oracle {
namespace {

float SumOfPartials(const float (&p)[8]) {
  return ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
}

}  // namespace

absl::Status LayerNorm(const LayerNormArgs& args, Stream&) {
  const float dim = static_cast<float>(args.dim);
  for (int64_t t = 0; t < args.tokens; ++t) {
    const float* x = args.x + t * args.x_stride;
    float* y = args.y + t * args.y_stride;
    float sums[8] = {};
    for (int64_t i = 0; i < args.dim; ++i) sums[i % 8] += x[i];
    const float mean = SumOfPartials(sums) / dim;
    float squares[8] = {};
    for (int64_t i = 0; i < args.dim; ++i) {
      const float d = x[i] - mean;
      squares[i % 8] = std::fma(d, d, squares[i % 8]);
    }
    const float s = 1.0f / std::sqrt(SumOfPartials(squares) / dim + args.eps);
    for (int64_t i = 0; i < args.dim; ++i) {
      y[i] = std::fma((x[i] - mean) * s, args.weight[i], args.bias[i]);
    }
  }
  return absl::OkStatus();
}

}  // namespace bullpen::kernels::oracle
