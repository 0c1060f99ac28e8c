#include "engine/model/activations.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "kernels/attention.h"
#include "kernels/int8_rows.h"

namespace bullpen {
namespace {

// Hands out 64-byte aligned arrays of one buffer; with a null base it only
// counts, so that Bytes and Allocate cannot disagree.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}

  template <typename T>
  void Take(T*& array, int64_t count) {
    if (base_ != nullptr) array = reinterpret_cast<T*>(base_ + used_);
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
  }
  int64_t used() const { return used_; }

 private:
  std::byte* base_;
  int64_t used_ = 0;
};

int64_t Carve(const ModelConfig& config, const ActivationLimits& limits,
              std::byte* base, Activations& out) {
  int64_t widest = config.shared_inner;
  for (const LayerConfig& layer : config.layers) {
    widest = std::max<int64_t>(widest, layer.ffn_inner);
  }
  const int64_t rows = limits.rows;
  const int64_t k = std::max(config.experts_per_token, 1);
  out.attention_stride = kernels::AttentionScratch(config.value_dim);
  if (limits.threads > 1) {
    out.partials_room = kernels::AttentionPartials(limits.context, config.heads,
                                                   config.value_dim);
  }
  Carver carver(base);
  carver.Take(out.hidden, rows * config.dim);
  carver.Take(out.normed, rows * config.dim);
  const LatentAttention& latent = config.latent;
  const int64_t heads = config.heads;
  if (config.is_latent()) {
    carver.Take(out.qkv,
                rows * (latent.q_rank + latent.kv_rank + latent.rope_dim));
    carver.Take(out.head_query,
                rows * heads * (latent.nope_dim + latent.rope_dim));
    carver.Take(out.latent_query, rows * heads * config.head_dim);
    carver.Take(out.latent_attended, rows * heads * config.value_dim);
  } else {
    carver.Take(out.qkv, rows * (heads + 2 * int64_t{config.kv_heads}) *
                             config.head_dim);
  }
  carver.Take(out.attended, rows * config.attended_dim());
  carver.Take(out.attention, limits.threads * out.attention_stride);
  carver.Take(out.partials, out.partials_room);
  carver.Take(out.cos, rows * config.rope.rotary_dim / 2);
  carver.Take(out.sin, rows * config.rope.rotary_dim / 2);
  carver.Take(out.router_logits, rows * std::max(config.experts, 1));
  carver.Take(out.shared_weights, rows);
  carver.Take(out.row_index, rows);
  carver.Take(out.chosen, rows * k);
  carver.Take(out.chosen_weights, rows * k);
  carver.Take(out.entry_row, rows * k);
  carver.Take(out.entry_slot, rows * k);
  // The shared expert's rows stand behind those of the chosen ones.
  carver.Take(out.expert_out, rows * (k + 1) * config.dim);
  carver.Take(out.expert_inner, rows * k * 2 * widest);
  carver.Take(out.logits, rows * config.vocab);
  if (limits.int8) {
    const int64_t experts = k * std::max<int64_t>(config.dim, widest);
    const int64_t attention =
        std::max({int64_t{config.attended_dim()}, int64_t{latent.q_rank},
                  heads * std::max(config.value_dim, latent.nope_dim)});
    const int64_t cols = std::max(experts, attention);
    carver.Take(out.codes, rows * kernels::Int8RowBytes((cols + 31) / 32 * 32));
    carver.Take(out.x_codes,
                rows * kernels::Int8RowBytes((config.dim + 31) / 32 * 32));
  }
  return carver.used();
}

}  // namespace

int64_t Activations::Bytes(const ModelConfig& config,
                           const ActivationLimits& limits) {
  Activations counted;
  return Carve(config, limits, nullptr, counted);
}

absl::StatusOr<Activations> Activations::Allocate(
    const ModelConfig& config, const ActivationLimits& limits,
    std::span<const int32_t> memory_nodes) {
  Activations result;
  ASSIGN_OR_RETURN(result.buffer_,
                   HugeBuffer::Allocate(Bytes(config, limits),
                                        HugeBuffer::Touch::kNow, memory_nodes));
  Carve(config, limits, result.buffer_.data(), result);
  return result;
}

}  // namespace bullpen
