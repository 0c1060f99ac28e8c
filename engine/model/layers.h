#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/experts/cache.h"
#include "engine/model/activations.h"
#include "engine/model/packed_model.h"
#include "kernels/ops.h"

namespace bullpen {

// Replaces what a layer's router chose for its rows: [rows, k] experts and
// weights. For benchmarks with recorded routing; never for serving.
using Reroute = std::function<void(int layer, std::span<int32_t> chosen,
                                   std::span<float> weights)>;

// What one forward pass carries from layer to layer. Engine thread.
struct Pass {
  const kernels::Ops& ops;
  kernels::Stream& stream;
  const Activations& scratch;
  std::span<const kernels::KvSequence> sequences;
  int32_t rows = 0;
  Phase phase = Phase::kDecode;
  std::span<absl::Status> sequence_status;  // set to the first failure of each
  const Reroute* reroute = nullptr;         // benchmarks only
};

// One RMS norm of a layer's rows.
struct NormWeights {
  const float* weight = nullptr;
  int32_t dim = 0;
  float eps = 0;
};

// How a block's output joins the residual stream.
absl::Status NormRows(const Pass& pass, const NormWeights& norm, const float* x,
                      float* y);
// hidden += RmsNorm(y), for families whose norms come after the block.
absl::Status AddNormed(const Pass& pass, const NormWeights& norm, float* y);

// hidden += Wo . Attention(RmsNorm(hidden)), over the layer's KV blocks; or
// hidden += RmsNorm(Wo . Attention(hidden)).
class AttentionLayer {
 public:
  AttentionLayer(const ModelConfig& config, const ResidentWeights& weights,
                 int layer, kernels::KvLayer kv);
  absl::Status Forward(const Pass& pass) const;

 private:
  absl::Status NormQk(const Pass& pass, float* x, int32_t heads,
                      const float* weight) const;
  absl::Status RotateAndStore(const Pass& pass) const;
  absl::Status Project(const Pass& pass) const;

  const ModelConfig& config_;
  kernels::KvLayer kv_;
  float scale_;  // of the scores
  int32_t window_;
  NormWeights norm_;
  kernels::PanelMatrix qkv_;
  const float* qkv_bias_;
  const float* q_norm_;  // null without QK norm
  const float* k_norm_;
  kernels::PanelMatrix o_;
  const float* o_bias_;
};

// hidden += the chosen experts of RmsNorm(hidden), weighted by the router. A
// dense layer is a layer of one expert that every row chooses with weight 1.
class MoeLayer {
 public:
  MoeLayer(const PackedModel& model, const ResidentWeights& weights, int layer,
           ExpertCache& cache);
  absl::Status Forward(const Pass& pass);

 private:
  absl::Status Route(const Pass& pass, const float* x) const;
  // Sorts the (row, rank) pairs by expert into scratch.entry_*.
  void GroupByExpert(const Pass& pass);
  absl::Status RunExperts(const Pass& pass, const float* x);
  // The FFN that every row uses, into the rows of expert_out behind the others.
  absl::Status RunShared(const Pass& pass, const float* x);
  // target += the experts' outputs, in rank order, then the shared one's.
  absl::Status Combine(const Pass& pass, float* target) const;
  // Fails the sequences that need `expert`; its outputs count as zero.
  void FailExpert(const Pass& pass, const ReadyExpert& expert) const;

  const ModelConfig& config_;
  int layer_;
  int32_t experts_;
  int32_t k_;
  kernels::ExpertShape shape_;
  NormWeights norm_;
  kernels::PanelMatrix router_;  // no data in a dense layer
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
};

}  // namespace bullpen
