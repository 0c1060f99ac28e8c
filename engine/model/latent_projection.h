#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "engine/model/pass.h"

namespace bullpen {

// The queries, keys and values of latent attention, see LatentAttention.
class LatentProjection {
 public:
  LatentProjection(const ModelConfig& config, const ResidentWeights& weights,
                   int layer);
  // From x [rows, dim] to latent_query, and to qkv, whose rows end with the
  // keys.
  absl::Status Down(const Pass& pass, const float* x) const;
  // From latent_attended to attended.
  absl::Status Up(const Pass& pass) const;

  // Of a row of qkv, and where its key begins.
  int64_t down_width() const { return down_.rows; }
  int64_t key_offset() const { return config_.latent.q_rank; }

 private:
  absl::Status NormLatent(const Pass& pass, float* x, int32_t dim,
                          const float* weight) const;
  absl::Status MakeQueries(const Pass& pass, const float* x) const;

  const ModelConfig& config_;
  int layer_;
  kernels::PanelMatrix down_;
  const float* down_bias_ = nullptr;
  const float* q_norm_ = nullptr;  // null: queries have no latent
  const float* kv_norm_ = nullptr;
  kernels::PanelMatrix q_up_;
  kernels::PanelMatrix key_up_;    // of the first head; the others follow
  kernels::PanelMatrix value_up_;  // likewise
};

}  // namespace bullpen
