#include <cmath>

#include "kernels/oracle.h"

namespace bullpen::kernels::oracle {

absl::Status RmsNorm(const RmsNormArgs& args, Stream&) {
  const int64_t dim = args.dim;
  for (int64_t t = 0; t < args.tokens; ++t) {
    for (int64_t head = 0; head < args.heads; ++head) {
      const float* x = args.x + t * args.x_stride + head * dim;
      float* y = args.y + t * args.y_stride + head * dim;
      float p[8] = {};
      for (int64_t i = 0; i < dim; ++i)
        p[i % 8] = std::fma(x[i], x[i], p[i % 8]);
      const float sum =
          ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
      const float s =
          1.0f / std::sqrt(sum / static_cast<float>(dim) + args.eps);
      for (int64_t i = 0; i < dim; ++i) {
        y[i] = (x[i] * s) * (args.weight != nullptr ? args.weight[i] : 1.0f);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace bullpen::kernels::oracle
