#include <cmath>

#include "kernels/oracle.h"

namespace bullpen::kernels::oracle {

absl::Status Rope(const RopeArgs& args, Stream&) {
  const int64_t half = args.rotary_dim / 2;
  for (int64_t t = 0; t < args.tokens; ++t) {
    const float* cos = args.cos + t * half;
    const float* sin = args.sin + t * half;
    for (int64_t head = 0; head < args.heads; ++head) {
      float* x = args.x + t * args.x_stride + head * args.head_dim;
      for (int64_t i = 0; i < half; ++i) {
        float& first = args.interleaved ? x[2 * i] : x[i];
        float& second = args.interleaved ? x[2 * i + 1] : x[i + half];
        const float a = first;
        const float b = second;
        first = std::fma(a, cos[i], -(b * sin[i]));
        second = std::fma(b, cos[i], a * sin[i]);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace bullpen::kernels::oracle
