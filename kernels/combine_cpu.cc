#include <cmath>

#include "kernels/oracle.h"

namespace bullpen::kernels::oracle {

absl::Status Combine(const CombineArgs& args, Stream&) {
  for (int64_t t = 0; t < args.tokens; ++t) {
    for (int64_t i = 0; i < args.dim; ++i) {
      float sum = 0.0f;
      for (int64_t r = 0; r < args.k; ++r) {
        const int64_t slot = t * args.k + r;
        sum = std::fma(args.weights[slot], args.y[slot * args.dim + i], sum);
      }
      args.h[t * args.dim + i] += args.scale * sum;
    }
  }
  return absl::OkStatus();
}

}  // namespace bullpen::kernels::oracle
