#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/model/layers.h"

namespace bullpen {

AttentionLayer::AttentionLayer(const ModelConfig& config,
                               const ResidentWeights& weights, int layer,
                               kernels::KvLayer kv)
    : config_(config),
      kv_(kv),
      scale_(static_cast<float>(1.0 / std::sqrt(config.head_dim))) {
  const std::string prefix = absl::StrCat("layers.", layer, ".");
  norm_ = weights.vector(prefix + "attn_norm");
  qkv_ = weights.matrix(prefix + "qkv");
  qkv_bias_ = config.qkv_bias ? weights.vector(prefix + "qkv_bias") : nullptr;
  const bool qk_norm = config.qk_norm == QkNorm::kPerHead;
  q_norm_ = qk_norm ? weights.vector(prefix + "q_norm") : nullptr;
  k_norm_ = qk_norm ? weights.vector(prefix + "k_norm") : nullptr;
  o_ = weights.matrix(prefix + "o");
}

absl::Status AttentionLayer::Forward(const Pass& pass) const {
  const Activations& a = pass.scratch;
  const int64_t head_dim = config_.head_dim;
  const int64_t qkv_width = (config_.heads + 2 * config_.kv_heads) * head_dim;
  RETURN_IF_ERROR(
      pass.ops.rms_norm({.x = a.hidden,
                         .x_stride = config_.dim,
                         .y = a.normed,
                         .y_stride = config_.dim,
                         .weight = norm_,
                         .tokens = pass.rows,
                         .dim = config_.dim,
                         .eps = static_cast<float>(config_.norm_eps)},
                        pass.stream));
  RETURN_IF_ERROR(pass.ops.matmul({.x = a.normed,
                                   .x_stride = config_.dim,
                                   .w = qkv_,
                                   .bias = qkv_bias_,
                                   .y = a.qkv,
                                   .y_stride = qkv_width,
                                   .tokens = pass.rows},
                                  pass.stream));
  RETURN_IF_ERROR(RotateAndStore(pass));
  RETURN_IF_ERROR(pass.ops.attention(
      {.q = a.qkv,
       .q_stride = qkv_width,
       .out = a.attended,
       .out_stride = config_.heads * head_dim,
       .layer = kv_,
       .sequences = pass.sequences.data(),
       .sequence_count = static_cast<int32_t>(pass.sequences.size()),
       .heads = config_.heads,
       .scale = scale_,
       .scratch = a.scores,
       .scratch_stride = a.score_stride},
      pass.stream));
  return pass.ops.matmul({.x = a.attended,
                          .x_stride = config_.heads * head_dim,
                          .w = o_,
                          .y = a.hidden,
                          .y_stride = config_.dim,
                          .tokens = pass.rows,
                          .add = true},
                         pass.stream);
}

absl::Status AttentionLayer::RotateAndStore(const Pass& pass) const {
  const Activations& a = pass.scratch;
  const int64_t head_dim = config_.head_dim;
  const int64_t qkv_width = (config_.heads + 2 * config_.kv_heads) * head_dim;
  float* const k = a.qkv + config_.heads * head_dim;
  float* const v = k + config_.kv_heads * head_dim;
  struct Part {
    float* x;
    int32_t heads;
    const float* norm;
  };
  for (const Part& part : {Part{a.qkv, config_.heads, q_norm_},
                           Part{k, config_.kv_heads, k_norm_}}) {
    if (part.norm != nullptr) {
      RETURN_IF_ERROR(
          pass.ops.rms_norm({.x = part.x,
                             .x_stride = qkv_width,
                             .heads = part.heads,
                             .y = part.x,
                             .y_stride = qkv_width,
                             .weight = part.norm,
                             .tokens = pass.rows,
                             .dim = config_.head_dim,
                             .eps = static_cast<float>(config_.norm_eps)},
                            pass.stream));
    }
    RETURN_IF_ERROR(pass.ops.rope({.x = part.x,
                                   .x_stride = qkv_width,
                                   .tokens = pass.rows,
                                   .heads = part.heads,
                                   .head_dim = config_.head_dim,
                                   .rotary_dim = config_.rotary_dim,
                                   .interleaved = config_.rope_interleaved,
                                   .cos = a.cos,
                                   .sin = a.sin},
                                  pass.stream));
  }
  return pass.ops.kv_write(
      {.k = k,
       .k_stride = qkv_width,
       .v = v,
       .v_stride = qkv_width,
       .layer = kv_,
       .sequences = pass.sequences.data(),
       .sequence_count = static_cast<int32_t>(pass.sequences.size())},
      pass.stream);
}

}  // namespace bullpen
