#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/model/layers.h"

namespace bullpen {

AttentionLayer::AttentionLayer(const ModelConfig& config,
                               const ResidentWeights& weights, int layer,
                               const LayerKv& kv)
    : config_(config),
      layer_(layer),
      kv_(kv),
      window_(config.layers[layer].window) {
  const std::string prefix = absl::StrCat("layers.", layer, ".");
  norm_ = NormWeights::Of(config, weights, prefix + "attn_norm");
  o_ = weights.matrix(prefix + "o");
  o_bias_ = config.o_bias ? weights.vector(prefix + "o_bias") : nullptr;
  if (config.is_latent()) {
    latent_.emplace(config, weights, layer);
    return;
  }
  qkv_ = weights.matrix(prefix + "qkv");
  if (config.qkv_bias) qkv_bias_ = weights.vector(prefix + "qkv_bias");
  if (config.qk_norm != QkNorm::kNone) {
    q_norm_ = weights.vector(prefix + "q_norm");
    k_norm_ = weights.vector(prefix + "k_norm");
  }
  if (config.sinks) sinks_ = weights.vector(prefix + "sinks");
}

absl::Status AttentionLayer::Forward(const Pass& pass) const {
  const Activations& a = pass.scratch;
  const bool norm_first = config_.norm_place == NormPlace::kBefore;
  if (norm_first) {
    RETURN_IF_ERROR(NormRows(pass, norm_, a.hidden, a.normed));
  }
  const float* x = norm_first ? a.normed : a.hidden;
  RETURN_IF_ERROR(latent_.has_value() ? AttendLatent(pass, x)
                                      : AttendGrouped(pass, x));
  return Project(pass);
}

absl::Status AttentionLayer::AttendGrouped(const Pass& pass,
                                           const float* x) const {
  const Activations& a = pass.scratch;
  const int64_t head_dim = config_.head_dim;
  const int64_t width = qkv_.rows;
  RETURN_IF_ERROR(Multiply(pass, {layer_, "qkv"},
                           {.x = x,
                            .x_stride = config_.dim,
                            .w = qkv_,
                            .bias = qkv_bias_,
                            .y = a.qkv,
                            .y_stride = width,
                            .tokens = pass.rows}));
  RETURN_IF_ERROR(Rotate(pass));
  const float* const k = a.qkv + config_.heads * head_dim;
  return StoreAndAttend(pass,
                        {.k = k,
                         .k_stride = width,
                         .v = k + config_.kv_heads * head_dim,
                         .v_stride = width},
                        {.q = a.qkv,
                         .q_stride = width,
                         .out = a.attended,
                         .out_stride = config_.attended_dim()});
}

absl::Status AttentionLayer::AttendLatent(const Pass& pass,
                                          const float* x) const {
  const Activations& a = pass.scratch;
  RETURN_IF_ERROR(latent_->Down(pass, x));
  const float* const key = a.qkv + latent_->key_offset();
  RETURN_IF_ERROR(StoreAndAttend(
      pass, {.k = key, .k_stride = latent_->down_width()},
      {.q = a.latent_query,
       .q_stride = int64_t{config_.heads} * config_.head_dim,
       .out = a.latent_attended,
       .out_stride = int64_t{config_.heads} * config_.value_dim}));
  return latent_->Up(pass);
}

absl::Status AttentionLayer::StoreAndAttend(
    const Pass& pass, const kernels::KvWriteArgs& written,
    const kernels::AttentionArgs& asked) const {
  const Activations& a = pass.scratch;
  const std::span<const kernels::KvSequence> sequences = pass.kv[kv_.group];
  const int32_t count = static_cast<int32_t>(sequences.size());
  kernels::KvWriteArgs write = written;
  write.layer = kv_.memory;
  write.sequences = sequences.data();
  write.sequence_count = count;
  RETURN_IF_ERROR(pass.ops.kv_write(write, pass.stream));
  kernels::AttentionArgs attend = asked;
  attend.layer = kv_.memory;
  attend.sequences = sequences.data();
  attend.sequence_count = count;
  attend.heads = config_.heads;
  attend.scale = static_cast<float>(config_.score_scale);
  attend.window = window_;
  attend.sinks = sinks_;
  attend.scratch = a.attention;
  attend.scratch_stride = a.attention_stride;
  attend.partials = a.partials;
  attend.partials_room = a.partials_room;
  return pass.ops.attention(attend, pass.stream);
}

absl::Status AttentionLayer::Project(const Pass& pass) const {
  const Activations& a = pass.scratch;
  const bool norm_after = config_.norm_place == NormPlace::kAfter;
  RETURN_IF_ERROR(Multiply(pass, {layer_, "o"},
                           {.x = a.attended,
                            .x_stride = config_.attended_dim(),
                            .w = o_,
                            .bias = o_bias_,
                            .y = norm_after ? a.normed : a.hidden,
                            .y_stride = config_.dim,
                            .tokens = pass.rows,
                            .scale = static_cast<float>(config_.residual_scale),
                            .add = !norm_after}));
  return norm_after ? AddNormed(pass, norm_, a.normed) : absl::OkStatus();
}

absl::Status AttentionLayer::NormQk(const Pass& pass, float* x, int32_t heads,
                                    const float* weight) const {
  const bool whole = config_.qk_norm == QkNorm::kWhole;
  return pass.ops.rms_norm(
      {.x = x,
       .x_stride = qkv_.rows,
       .heads = whole ? 1 : heads,
       .y = x,
       .y_stride = qkv_.rows,
       .weight = weight,
       .tokens = pass.rows,
       .dim = whole ? heads * config_.head_dim : config_.head_dim,
       .eps = static_cast<float>(config_.norm_eps)},
      pass.stream);
}

void AttentionLayer::Clip(const Pass& pass) const {
  const float most = static_cast<float>(config_.clip_qkv);
  float* const x = pass.scratch.qkv;
  for (int64_t i = 0; i < int64_t{pass.rows} * qkv_.rows; ++i) {
    x[i] = std::clamp(x[i], -most, most);
  }
}

absl::Status AttentionLayer::Rotate(const Pass& pass) const {
  const Activations& a = pass.scratch;
  float* const k = a.qkv + int64_t{config_.heads} * config_.head_dim;
  if (q_norm_ != nullptr) {
    RETURN_IF_ERROR(NormQk(pass, a.qkv, config_.heads, q_norm_));
    RETURN_IF_ERROR(NormQk(pass, k, config_.kv_heads, k_norm_));
  }
  if (config_.clip_qkv > 0) Clip(pass);
  struct Part {
    float* x;
    int32_t heads;
  };
  for (const Part& part :
       {Part{a.qkv, config_.heads}, Part{k, config_.kv_heads}}) {
    RETURN_IF_ERROR(pass.ops.rope({.x = part.x,
                                   .x_stride = qkv_.rows,
                                   .tokens = pass.rows,
                                   .heads = part.heads,
                                   .head_dim = config_.head_dim,
                                   .rotary_dim = config_.rope.rotary_dim,
                                   .interleaved = config_.rope.interleaved,
                                   .cos = a.cos,
                                   .sin = a.sin},
                                  pass.stream));
  }
  return absl::OkStatus();
}

}  // namespace bullpen
