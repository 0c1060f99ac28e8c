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
  norm_ = {.weight = weights.vector(prefix + "attn_norm"),
           .dim = config.dim,
           .eps = static_cast<float>(config.norm_eps)};
  window_ = config.layers[layer].window;
  qkv_ = weights.matrix(prefix + "qkv");
  qkv_bias_ = config.qkv_bias ? weights.vector(prefix + "qkv_bias") : nullptr;
  const bool qk_norm = config.qk_norm != QkNorm::kNone;
  q_norm_ = qk_norm ? weights.vector(prefix + "q_norm") : nullptr;
  k_norm_ = qk_norm ? weights.vector(prefix + "k_norm") : nullptr;
  o_ = weights.matrix(prefix + "o");
  o_bias_ = config.o_bias ? weights.vector(prefix + "o_bias") : nullptr;
}

absl::Status AttentionLayer::Forward(const Pass& pass) const {
  const Activations& a = pass.scratch;
  const int64_t head_dim = config_.head_dim;
  const int64_t qkv_width = (config_.heads + 2 * config_.kv_heads) * head_dim;
  const bool norm_first = config_.norm_place == NormPlace::kBefore;
  if (norm_first) {
    RETURN_IF_ERROR(NormRows(pass, norm_, a.hidden, a.normed));
  }
  RETURN_IF_ERROR(pass.ops.matmul({.x = norm_first ? a.normed : a.hidden,
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
       .window = window_,
       .scratch = a.scores,
       .scratch_stride = a.score_stride},
      pass.stream));
  return Project(pass);
}

absl::Status AttentionLayer::Project(const Pass& pass) const {
  const Activations& a = pass.scratch;
  const bool norm_after = config_.norm_place == NormPlace::kAfter;
  RETURN_IF_ERROR(
      pass.ops.matmul({.x = a.attended,
                       .x_stride = int64_t{config_.heads} * config_.head_dim,
                       .w = o_,
                       .bias = o_bias_,
                       .y = norm_after ? a.normed : a.hidden,
                       .y_stride = config_.dim,
                       .tokens = pass.rows,
                       .add = !norm_after},
                      pass.stream));
  return norm_after ? AddNormed(pass, norm_, a.normed) : absl::OkStatus();
}

absl::Status AttentionLayer::NormQk(const Pass& pass, float* x, int32_t heads,
                                    const float* weight) const {
  const int64_t stride =
      (config_.heads + 2 * int64_t{config_.kv_heads}) * config_.head_dim;
  const bool whole = config_.qk_norm == QkNorm::kWhole;
  return pass.ops.rms_norm(
      {.x = x,
       .x_stride = stride,
       .heads = whole ? 1 : heads,
       .y = x,
       .y_stride = stride,
       .weight = weight,
       .tokens = pass.rows,
       .dim = whole ? heads * config_.head_dim : config_.head_dim,
       .eps = static_cast<float>(config_.norm_eps)},
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
      RETURN_IF_ERROR(NormQk(pass, part.x, part.heads, part.norm));
    }
    RETURN_IF_ERROR(pass.ops.rope({.x = part.x,
                                   .x_stride = qkv_width,
                                   .tokens = pass.rows,
                                   .heads = part.heads,
                                   .head_dim = config_.head_dim,
                                   .rotary_dim = config_.rope.rotary_dim,
                                   .interleaved = config_.rope.interleaved,
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
