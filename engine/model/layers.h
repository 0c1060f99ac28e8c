#pragma once

#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "engine/experts/cache.h"
#include "engine/model/latent_projection.h"
#include "engine/model/packed_model.h"
#include "engine/model/pass.h"
#include "kernels/ops.h"

namespace bullpen {

// Where a layer's keys and values are.
struct LayerKv {
  kernels::KvLayer memory;
  int32_t group = 0;  // whose tables say which blocks
};

// hidden += Wo . Attention(Norm(hidden)), over the layer's KV blocks; or
// hidden += Norm(Wo . Attention(hidden)).
class AttentionLayer {
 public:
  AttentionLayer(const ModelConfig& config, const ResidentWeights& weights,
                 int layer, const LayerKv& kv);
  absl::Status Forward(const Pass& pass) const;

 private:
  absl::Status NormQk(const Pass& pass, float* x, int32_t heads,
                      const float* weight) const;
  void Clip(const Pass& pass) const;
  absl::Status Rotate(const Pass& pass) const;
  absl::Status AttendGrouped(const Pass& pass, const float* x) const;
  absl::Status AttendLatent(const Pass& pass, const float* x) const;
  // Writes the rows' keys and values, and attends: q to out.
  absl::Status StoreAndAttend(const Pass& pass,
                              const kernels::KvWriteArgs& written,
                              const kernels::AttentionArgs& asked) const;
  absl::Status Project(const Pass& pass) const;

  const ModelConfig& config_;
  int layer_;
  LayerKv kv_;
  int32_t window_;
  NormWeights norm_;
  std::optional<LatentProjection> latent_;  // instead of the five below
  kernels::PanelMatrix qkv_;
  const float* qkv_bias_ = nullptr;
  const float* q_norm_ = nullptr;  // null without QK norm
  const float* k_norm_ = nullptr;
  const float* sinks_ = nullptr;
  kernels::PanelMatrix o_;
  const float* o_bias_;
};

// hidden += the chosen experts of Norm(hidden), weighted by the router. A
// dense layer is a layer of one expert that every row chooses with weight 1.
class MoeLayer {
 public:
  MoeLayer(const PackedModel& model, const ResidentWeights& weights, int layer,
           ExpertCache& cache);
  absl::Status Forward(const Pass& pass);

  // What this layer's router makes of the hidden states at hand, those of an
  // earlier layer: choice scores less the k-th best of each row, into
  // peek.margins. The layer must route.
  absl::Status Peek(const Pass& pass, RouterPeek& peek) const;

 private:
  absl::Status RouterLogits(const Pass& pass, const float* x,
                            float* logits) const;
  absl::Status Route(const Pass& pass, const float* x) const;
  // Sorts the (row, rank) pairs by expert into scratch.entry_*.
  void GroupByExpert(const Pass& pass);
  absl::Status RunExperts(const Pass& pass, const float* x);
  // The FFN that every row uses, into the rows of expert_out behind the others.
  absl::Status RunShared(const Pass& pass, const float* x);
  // target += the experts' outputs, in rank order, then the shared one's.
  absl::Status Combine(const Pass& pass, float* target) const;
  // Shows the tap what groups_ were computed from.
  void TapExperts(const Pass& pass, const float* x) const;
  // Fails the sequences that need `expert`; its outputs count as zero.
  void FailExpert(const Pass& pass, const ReadyExpert& expert) const;

  const ModelConfig& config_;
  int layer_;
  int32_t experts_;
  int32_t k_;
  kernels::ExpertShape shape_;
  NormWeights norm_;
  kernels::PanelMatrix router_;  // no data in a dense layer
  const float* router_bias_ = nullptr;
  const float* choice_bias_ = nullptr;
  kernels::ExpertShape shared_shape_;
  const void* shared_blob_ = nullptr;  // null: no shared expert
  kernels::PanelMatrix shared_gate_;   // no data: plain
  ExpertCache& cache_;
  // Of the step at hand, kept to avoid allocation.
  std::vector<int32_t> first_entry_;  // [experts + 1]
  std::vector<int32_t> needed_;       // experts with rows, ascending
  std::vector<int32_t> counts_;       // their rows
  std::vector<kernels::ExpertRows> groups_;
  std::vector<int32_t> group_experts_;
};

}  // namespace bullpen
