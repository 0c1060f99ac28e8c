#include "engine/model/latent_projection.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace bullpen {

LatentProjection::LatentProjection(const ModelConfig& config,
                                   const ResidentWeights& weights, int layer)
    : config_(config), layer_(layer) {
  const std::string prefix = absl::StrCat("layers.", layer, ".");
  down_ = weights.matrix(prefix + "down");
  kv_norm_ = weights.vector(prefix + "kv_latent_norm");
  q_up_ = weights.matrix(prefix + "q_up");
  key_up_ = weights.matrix(prefix + "k_up");
  value_up_ = weights.matrix(prefix + "v_up");
  if (config.qkv_bias) down_bias_ = weights.vector(prefix + "down_bias");
  if (config.latent.q_rank > 0) {
    q_norm_ = weights.vector(prefix + "q_latent_norm");
  }
}

absl::Status LatentProjection::NormLatent(const Pass& pass, float* x,
                                          int32_t dim,
                                          const float* weight) const {
  return pass.ops.rms_norm({.x = x,
                            .x_stride = down_width(),
                            .y = x,
                            .y_stride = down_width(),
                            .weight = weight,
                            .tokens = pass.rows,
                            .dim = dim,
                            .eps = static_cast<float>(config_.latent.norm_eps)},
                           pass.stream);
}

absl::Status LatentProjection::Down(const Pass& pass, const float* x) const {
  const Activations& a = pass.scratch;
  const LatentAttention& latent = config_.latent;
  RETURN_IF_ERROR(Multiply(pass, {layer_, "down"},
                           {.x = x,
                            .x_stride = config_.dim,
                            .w = down_,
                            .bias = down_bias_,
                            .y = a.qkv,
                            .y_stride = down_width(),
                            .tokens = pass.rows}));
  float* const key = a.qkv + key_offset();
  RETURN_IF_ERROR(NormLatent(pass, key, latent.kv_rank, kv_norm_));
  RETURN_IF_ERROR(pass.ops.rope({.x = key + latent.kv_rank,
                                 .x_stride = down_width(),
                                 .tokens = pass.rows,
                                 .heads = 1,
                                 .head_dim = latent.rope_dim,
                                 .rotary_dim = latent.rope_dim,
                                 .interleaved = config_.rope.interleaved,
                                 .cos = a.cos,
                                 .sin = a.sin},
                                pass.stream));
  return MakeQueries(pass, x);
}

// latent_query = each head's query: brought into the latent space, with its
// rotated part behind.
absl::Status LatentProjection::MakeQueries(const Pass& pass,
                                           const float* x) const {
  const Activations& a = pass.scratch;
  const LatentAttention& latent = config_.latent;
  const int64_t heads = config_.heads;
  const int64_t head_dim = latent.nope_dim + latent.rope_dim;
  if (q_norm_ != nullptr) {
    RETURN_IF_ERROR(NormLatent(pass, a.qkv, latent.q_rank, q_norm_));
  }
  RETURN_IF_ERROR(Multiply(
      pass, {layer_, "q_up"},
      {.x = q_norm_ != nullptr ? a.qkv : x,
       .x_stride = q_norm_ != nullptr ? down_width() : int64_t{config_.dim},
       .w = q_up_,
       .y = a.head_query,
       .y_stride = heads * head_dim,
       .tokens = pass.rows}));
  RETURN_IF_ERROR(Multiply(pass, {layer_, "k_up"},
                           {.x = a.head_query,
                            .x_stride = heads * head_dim,
                            .w = key_up_,
                            .y = a.latent_query,
                            .y_stride = heads * config_.head_dim,
                            .tokens = pass.rows,
                            .heads = config_.heads,
                            .x_head_stride = head_dim,
                            .y_head_stride = config_.head_dim}));
  for (int64_t i = 0; i < pass.rows * heads; ++i) {
    std::memcpy(a.latent_query + i * config_.head_dim + latent.kv_rank,
                a.head_query + i * head_dim + latent.nope_dim,
                sizeof(float) * latent.rope_dim);
  }
  return pass.ops.rope({.x = a.latent_query + latent.kv_rank,
                        .x_stride = heads * config_.head_dim,
                        .tokens = pass.rows,
                        .heads = config_.heads,
                        .head_dim = config_.head_dim,
                        .rotary_dim = latent.rope_dim,
                        .interleaved = config_.rope.interleaved,
                        .cos = a.cos,
                        .sin = a.sin},
                       pass.stream);
}

absl::Status LatentProjection::Up(const Pass& pass) const {
  const Activations& a = pass.scratch;
  const int64_t heads = config_.heads;
  return Multiply(pass, {layer_, "v_up"},
                  {.x = a.latent_attended,
                   .x_stride = heads * config_.value_dim,
                   .w = value_up_,
                   .y = a.attended,
                   .y_stride = config_.attended_dim(),
                   .tokens = pass.rows,
                   .heads = config_.heads,
                   .x_head_stride = config_.value_dim,
                   .y_head_stride = config_.latent.value_dim});
}

}  // namespace bullpen
