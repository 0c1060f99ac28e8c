#include <algorithm>

#include "base/status.h"
#include "engine/model/pass.h"

namespace bullpen {

absl::Status Multiply(const Pass& pass, const MatrixPlace& place,
                      const kernels::MatMulArgs& args) {
  if (pass.input_tap != nullptr) {
    const bool one = args.heads == 1;
    (*pass.input_tap)({.layer = place.layer,
                       .matrix = place.matrix,
                       .x = args.x,
                       .x_stride = one ? args.x_stride : args.x_head_stride,
                       .rows = int64_t{args.tokens} * args.heads,
                       .cols = args.w.cols});
  }
  kernels::MatMulArgs product = args;
  product.x_codes = pass.scratch.codes;
  return pass.ops.matmul(product, pass.stream);
}

NormWeights NormWeights::Of(const ModelConfig& config,
                            const ResidentWeights& weights,
                            const std::string& name) {
  return {.weight = weights.vector(name),
          .bias = config.norm_kind == NormKind::kLayer
                      ? weights.vector(name + "_bias")
                      : nullptr,
          .dim = config.dim,
          .eps = static_cast<float>(config.norm_eps)};
}

absl::Status NormRows(const Pass& pass, const NormWeights& norm, const float* x,
                      float* y) {
  if (norm.bias != nullptr) {
    return pass.ops.layer_norm({.x = x,
                                .x_stride = norm.dim,
                                .y = y,
                                .y_stride = norm.dim,
                                .weight = norm.weight,
                                .bias = norm.bias,
                                .tokens = pass.rows,
                                .dim = norm.dim,
                                .eps = norm.eps},
                               pass.stream);
  }
  return pass.ops.rms_norm({.x = x,
                            .x_stride = norm.dim,
                            .y = y,
                            .y_stride = norm.dim,
                            .weight = norm.weight,
                            .tokens = pass.rows,
                            .dim = norm.dim,
                            .eps = norm.eps},
                           pass.stream);
}

absl::Status AddNormed(const Pass& pass, const NormWeights& norm, float* y) {
  RETURN_IF_ERROR(NormRows(pass, norm, y, y));
  std::fill_n(pass.scratch.shared_weights, pass.rows, 1.0f);
  return pass.ops.combine({.y = y,
                           .weights = pass.scratch.shared_weights,
                           .h = pass.scratch.hidden,
                           .tokens = pass.rows,
                           .k = 1,
                           .dim = norm.dim},
                          pass.stream);
}

}  // namespace bullpen
