#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/model/layers.h"

namespace bullpen {

MoeLayer::MoeLayer(const PackedModel& model, const ResidentWeights& weights,
                   int layer, ExpertCache& cache)
    : config_(model.config()),
      layer_(layer),
      experts_(config_.experts_in(layer)),
      k_(config_.k_in(layer)),
      shape_(model.expert_shape(layer)),
      cache_(cache) {
  const std::string prefix = absl::StrCat("layers.", layer, ".");
  norm_ = weights.vector(prefix + "ffn_norm");
  if (config_.layers[layer].moe) router_ = weights.matrix(prefix + "router");
  first_entry_.resize(experts_ + 1);
  needed_.reserve(experts_);
  counts_.reserve(experts_);
  groups_.reserve(experts_);
}

absl::Status MoeLayer::Forward(const Pass& pass) {
  const Activations& a = pass.scratch;
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
  RETURN_IF_ERROR(Route(pass));
  GroupByExpert(pass);
  RETURN_IF_ERROR(RunExperts(pass));
  return pass.ops.combine({.y = a.expert_out,
                           .weights = a.chosen_weights,
                           .h = a.hidden,
                           .tokens = pass.rows,
                           .k = k_,
                           .dim = config_.dim},
                          pass.stream);
}

absl::Status MoeLayer::Route(const Pass& pass) const {
  const Activations& a = pass.scratch;
  if (router_.data == nullptr) {
    std::fill_n(a.chosen, pass.rows, 0);
    std::fill_n(a.chosen_weights, pass.rows, 1.0f);
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(pass.ops.matmul({.x = a.normed,
                                   .x_stride = config_.dim,
                                   .w = router_,
                                   .y = a.router_logits,
                                   .y_stride = experts_,
                                   .tokens = pass.rows},
                                  pass.stream));
  return pass.ops.route({.logits = a.router_logits,
                         .tokens = pass.rows,
                         .experts = experts_,
                         .k = k_,
                         .rule = config_.router,
                         .chosen = a.chosen,
                         .weights = a.chosen_weights},
                        pass.stream);
}

void MoeLayer::GroupByExpert(const Pass& pass) {
  const Activations& a = pass.scratch;
  const int32_t entries = pass.rows * k_;
  std::fill(first_entry_.begin(), first_entry_.end(), 0);
  for (int32_t i = 0; i < entries; ++i) ++first_entry_[a.chosen[i] + 1];
  needed_.clear();
  counts_.clear();
  for (int32_t e = 0; e < experts_; ++e) {
    if (first_entry_[e + 1] > 0) {
      needed_.push_back(e);
      counts_.push_back(first_entry_[e + 1]);
    }
    first_entry_[e + 1] += first_entry_[e];
  }
  for (int32_t i = 0; i < entries; ++i) {
    const int32_t at = first_entry_[a.chosen[i]]++;
    a.entry_row[at] = i / k_;
    a.entry_slot[at] = i;
  }
  // Filling moved each start to its end, which is the next one's start.
  for (int32_t e = experts_; e > 0; --e) first_entry_[e] = first_entry_[e - 1];
  first_entry_[0] = 0;
}

absl::Status MoeLayer::RunExperts(const Pass& pass) {
  const Activations& a = pass.scratch;
  ExpertCache::Acquisition acquisition =
      cache_.Acquire(layer_, needed_, counts_, pass.rows, pass.phase);
  while (true) {
    const std::span<const ReadyExpert> ready = acquisition.Next();
    if (ready.empty()) return absl::OkStatus();
    groups_.clear();
    for (const ReadyExpert& expert : ready) {
      if (!expert.status.ok()) {
        FailExpert(pass, expert);
        continue;
      }
      groups_.push_back({.blob = expert.blob,
                         .begin = first_entry_[expert.expert],
                         .end = first_entry_[expert.expert + 1]});
    }
    RETURN_IF_ERROR(pass.ops.grouped_ffn(
        {.x = a.normed,
         .x_stride = config_.dim,
         .shape = shape_,
         .groups = groups_.data(),
         .group_count = static_cast<int32_t>(groups_.size()),
         .x_row = a.entry_row,
         .slot = a.entry_slot,
         .y = a.expert_out,
         .scratch = a.expert_inner},
        pass.stream));
  }
}

void MoeLayer::FailExpert(const Pass& pass, const ReadyExpert& expert) const {
  const Activations& a = pass.scratch;
  for (int32_t i = first_entry_[expert.expert];
       i < first_entry_[expert.expert + 1]; ++i) {
    std::fill_n(a.expert_out + int64_t{a.entry_slot[i]} * config_.dim,
                config_.dim, 0.0f);
    const int32_t row = a.entry_row[i];
    for (size_t s = 0; s < pass.sequences.size(); ++s) {
      const kernels::KvSequence& sequence = pass.sequences[s];
      if (row >= sequence.first_row &&
          row < sequence.first_row + sequence.rows) {
        pass.sequence_status[s].Update(expert.status);
      }
    }
  }
}

}  // namespace bullpen
