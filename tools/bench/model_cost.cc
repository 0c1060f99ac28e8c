#include "tools/bench/model_cost.h"

#include <algorithm>

#include "base/status.h"
#include "base/strings.h"
#include "engine/model/kv_shape.h"
#include "engine/model/pack_layout.h"
#include "kernels/kv_layout.h"

namespace bullpen {

absl::StatusOr<ModelCost> ModelCost::Of(const PackedModel& packed,
                                        const std::string& kv_type) {
  ASSIGN_OR_RETURN(const kernels::KvType type, ParseKvType(kv_type));
  const ModelConfig& config = packed.config();
  ModelCost cost(config);
  cost.kv_token_bytes_ =
      KvShape(config, type).block_bytes() / kernels::kKvBlockTokens;
  const std::string head = config.tied_head ? "embed" : "head";
  for (const ResidentShape& shape : ResidentShapes(config)) {
    if (shape.name == "embed" && head != "embed") continue;
    cost.resident_bytes_ += packed.tensors().at(shape.name).bytes;
    if (!shape.panels()) continue;
    const double elements = static_cast<double>(shape.rows) *
                            static_cast<double>(shape.cols) * shape.heads;
    (shape.name == head ? cost.head_multiply_adds_ : cost.row_multiply_adds_) +=
        elements;
  }
  for (int l = 0; l < static_cast<int>(config.layers.size()); ++l) {
    const kernels::ExpertShape& expert = packed.expert_shape(l);
    cost.expert_bytes_.push_back(expert.bytes());
    cost.row_multiply_adds_ += 3.0 * config.k_in(l) * expert.dim * expert.inner;
  }
  return cost;
}

int64_t ModelCost::KeysSeen(int layer, int64_t position) const {
  const int64_t window = config_.layers[layer].window;
  return window > 0 ? std::min(window, position + 1) : position + 1;
}

int64_t ModelCost::KvBytes(int64_t position) const {
  int64_t keys = 0;
  for (int l = 0; l < static_cast<int>(config_.layers.size()); ++l) {
    keys += KeysSeen(l, position);
  }
  return keys * kv_token_bytes_;
}

double ModelCost::PromptMultiplyAdds(int64_t rows) const {
  double keys = 0;
  for (int l = 0; l < static_cast<int>(config_.layers.size()); ++l) {
    for (int64_t position = 0; position < rows; ++position) {
      keys += static_cast<double>(KeysSeen(l, position));
    }
  }
  return static_cast<double>(rows) * row_multiply_adds_ + head_multiply_adds_ +
         keys * config_.heads * (config_.head_dim + config_.value_dim);
}

}  // namespace bullpen
