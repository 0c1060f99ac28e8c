#include <algorithm>

#include "base/status.h"
#include "engine/model/pass.h"

namespace bullpen {

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
