#include <cstddef>

#include "kernels/exp.h"
#include "kernels/int8_rows.h"
#include "kernels/oracle.h"

namespace bullpen::kernels::oracle {
namespace {

// NaN passes both bounds.
float Activate(const Activation& activation, float g, float u) {
  if (activation.kind == Activation::Kind::kSwiGlu) {
    return g / (1.0f + Exp(-g)) * u;
  }
  const float limit = activation.limit;
  g = limit < g ? limit : g;
  u = limit < u ? limit : u;
  u = -limit > u ? -limit : u;
  return g / (1.0f + Exp(-(activation.alpha * g))) * (u + 1.0f);
}

// Null: there is no bias.
const float* BiasAt(const ExpertShape& shape, const std::byte* blob,
                    int64_t offset) {
  return shape.bias ? reinterpret_cast<const float*>(blob + offset) : nullptr;
}

float Biased(float sum, const float* bias, int64_t row) {
  return bias != nullptr ? sum + bias[row] : sum;
}

}  // namespace

absl::Status GroupedFfn(const GroupedFfnArgs& args, Stream&) {
  const ExpertShape& shape = args.shape;
  for (int32_t g = 0; g < args.group_count; ++g) {
    const ExpertRows& group = args.groups[g];
    const std::byte* blob = static_cast<const std::byte*>(group.blob);
    const PanelMatrix gate = {blob, shape.dtype, shape.inner, shape.dim};
    const PanelMatrix up = {blob + shape.gate_bytes(), shape.dtype, shape.inner,
                            shape.dim};
    const PanelMatrix down = {blob + shape.down_offset(), shape.down_dtype(),
                              shape.dim, shape.inner};
    const float* gate_bias = BiasAt(shape, blob, shape.gate_bias_offset());
    const float* up_bias = BiasAt(shape, blob, shape.up_bias_offset());
    const float* down_bias = BiasAt(shape, blob, shape.down_bias_offset());
    for (int64_t i = group.begin; i < group.end; ++i) {
      const float* x = args.x + args.x_row[i] * args.x_stride;
      float* h = args.scratch + i * 2 * shape.inner;
      float* y = args.y + int64_t{args.slot[i]} * shape.dim;
      std::byte* codes = args.codes != nullptr
                             ? args.codes + i * shape.code_row_bytes()
                             : nullptr;
      const OracleRow x_row(shape.dtype, x, shape.dim, codes);
      for (int64_t j = 0; j < shape.inner; ++j) {
        h[j] =
            Activate(args.activation, Biased(x_row.Dot(gate, j), gate_bias, j),
                     Biased(x_row.Dot(up, j), up_bias, j));
      }
      const OracleRow h_row(shape.down_dtype(), h, shape.inner, codes);
      for (int64_t j = 0; j < shape.dim; ++j) {
        y[j] = Biased(h_row.Dot(down, j), down_bias, j);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace bullpen::kernels::oracle
