#include <cmath>
#include <cstddef>

#include "kernels/element.h"
#include "kernels/exp.h"
#include "kernels/oracle.h"

namespace bullpen::kernels::oracle {
namespace {

float Dot(DType dtype, const void* panels, int64_t row, int64_t cols,
          const float* x) {
  float sum = 0.0f;
  for (int64_t c = 0; c < cols; ++c) {
    sum = std::fma(x[c], LoadElement(dtype, panels, PanelIndex(row, c, cols)),
                   sum);
  }
  return sum;
}

}  // namespace

absl::Status GroupedFfn(const GroupedFfnArgs& args, Stream&) {
  const ExpertShape& shape = args.shape;
  for (int32_t g = 0; g < args.group_count; ++g) {
    const ExpertRows& group = args.groups[g];
    const std::byte* gate = static_cast<const std::byte*>(group.blob);
    const std::byte* up = gate + shape.gate_bytes();
    const std::byte* down = gate + shape.down_offset();
    for (int64_t i = group.begin; i < group.end; ++i) {
      const float* x = args.x + args.x_row[i] * args.x_stride;
      float* h = args.scratch + i * 2 * shape.inner;
      float* y = args.y + int64_t{args.slot[i]} * shape.dim;
      for (int64_t j = 0; j < shape.inner; ++j) {
        const float gated = Dot(shape.dtype, gate, j, shape.dim, x);
        const float silu = gated / (1.0f + Exp(-gated));
        h[j] = silu * Dot(shape.dtype, up, j, shape.dim, x);
      }
      for (int64_t j = 0; j < shape.dim; ++j) {
        y[j] = Dot(shape.dtype, down, j, shape.inner, h);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace bullpen::kernels::oracle
