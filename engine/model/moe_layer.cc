#include <algorithm>
#include <functional>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "engine/model/layers.h"
#include "kernels/exp.h"

namespace bullpen {
namespace {

// Far beyond any router's score, and still far from infinity.
constexpr float kLargestScore = 1e30f;

// Whether the pass is to go on.
absl::Status Proceed(const PassWatch& watch) {
  if (watch.stop.stop_requested()) {
    return absl::UnavailableError("the forward pass was stopped");
  }
  return watch.progress ? watch.progress() : absl::OkStatus();
}

}  // namespace

MoeLayer::MoeLayer(const PackedModel& model, const ResidentWeights& weights,
                   int layer, ExpertCache& cache)
    : config_(model.config()),
      layer_(layer),
      experts_(config_.experts_in(layer)),
      k_(config_.k_in(layer)),
      shape_(model.expert_shape(layer)),
      cache_(cache) {
  const std::string prefix = absl::StrCat("layers.", layer, ".");
  norm_ = NormWeights::Of(config_, weights, prefix + "ffn_norm");
  first_entry_.resize(experts_ + 1);
  needed_.reserve(experts_);
  counts_.reserve(experts_);
  groups_.reserve(experts_);
  group_experts_.reserve(experts_);
  if (!config_.layers[layer].moe) return;
  router_ = weights.matrix(prefix + "router");
  if (config_.router_bias) {
    router_bias_ = weights.vector(prefix + "router_bias");
  }
  if (config_.choice_bias) {
    choice_bias_ = weights.vector(prefix + "choice_bias");
  }
  if (config_.shared_expert == SharedExpert::kNone) return;
  // Packed one behind the other, so that they make an expert's blob.
  const kernels::PanelMatrix gate = weights.matrix(prefix + "shared_gate");
  const kernels::PanelMatrix down = weights.matrix(prefix + "shared_down");
  shared_shape_ = {.dtype = gate.dtype,
                   .dim = config_.dim,
                   .inner = config_.shared_inner,
                   .bias = config_.mlp_bias};
  if (down.dtype != gate.dtype) shared_shape_.other_down = down.dtype;
  shared_blob_ = gate.data;
  CHECK(static_cast<const std::byte*>(gate.data) +
            shared_shape_.down_offset() ==
        down.data)
      << prefix << "shared_* are not adjacent";
  if (config_.shared_expert == SharedExpert::kSigmoidGated) {
    shared_gate_ = weights.matrix(prefix + "shared_router");
  }
}

absl::Status MoeLayer::Forward(const Pass& pass) {
  const Activations& a = pass.scratch;
  const bool norm_first = config_.norm_place == NormPlace::kBefore;
  if (norm_first) {
    RETURN_IF_ERROR(NormRows(pass, norm_, a.hidden, a.normed));
  }
  const float* x = norm_first ? a.normed : a.hidden;
  RETURN_IF_ERROR(Route(pass, x));
  if (pass.reroute != nullptr && router_.data != nullptr) {
    const size_t entries = static_cast<size_t>(pass.rows) * k_;
    pass.reroute->choose(layer_, {a.chosen, entries},
                         {a.chosen_weights, entries});
  }
  GroupByExpert(pass);
  RETURN_IF_ERROR(RunExperts(pass, x));
  if (shared_blob_ != nullptr) RETURN_IF_ERROR(RunShared(pass, x));
  if (norm_first) return Combine(pass, a.hidden);
  std::fill_n(a.normed, int64_t{pass.rows} * config_.dim, 0.0f);
  RETURN_IF_ERROR(Combine(pass, a.normed));
  return AddNormed(pass, norm_, a.normed);
}

absl::Status MoeLayer::Combine(const Pass& pass, float* target) const {
  const Activations& a = pass.scratch;
  const float scale = static_cast<float>(config_.residual_scale);
  RETURN_IF_ERROR(pass.ops.combine({.y = a.expert_out,
                                    .weights = a.chosen_weights,
                                    .h = target,
                                    .tokens = pass.rows,
                                    .k = k_,
                                    .dim = config_.dim,
                                    .scale = scale},
                                   pass.stream));
  if (shared_blob_ == nullptr) return absl::OkStatus();
  return pass.ops.combine(
      {.y = a.expert_out + int64_t{pass.rows} * k_ * config_.dim,
       .weights = a.shared_weights,
       .h = target,
       .tokens = pass.rows,
       .k = 1,
       .dim = config_.dim,
       .scale = scale},
      pass.stream);
}

absl::Status MoeLayer::RouterLogits(const Pass& pass, const float* x,
                                    float* logits) const {
  return pass.ops.matmul({.x = x,
                          .x_stride = config_.dim,
                          .w = router_,
                          .bias = router_bias_,
                          .y = logits,
                          .y_stride = experts_,
                          .tokens = pass.rows},
                         pass.stream);
}

absl::Status MoeLayer::Peek(const Pass& pass, RouterPeek& peek) const {
  const float* x = pass.scratch.hidden;
  if (config_.norm_place == NormPlace::kBefore) {
    RETURN_IF_ERROR(NormRows(pass, norm_, x, peek.normed.data()));
    x = peek.normed.data();
  }
  RETURN_IF_ERROR(RouterLogits(pass, x, peek.margins.data()));
  for (int32_t row = 0; row < pass.rows; ++row) {
    const std::span<float> scores =
        std::span(peek.margins).subspan(size_t(row) * experts_, experts_);
    if (choice_bias_ != nullptr) {
      for (int32_t e = 0; e < experts_; ++e) {
        scores[e] = 1 / (1 + kernels::Exp(-scores[e])) + choice_bias_[e];
      }
    }
    // Whatever the hidden states are, the margins are numbers.
    for (float& score : scores) {
      score = score > -kLargestScore ? std::min(score, kLargestScore)
                                     : -kLargestScore;
    }
    peek.order.assign(scores.begin(), scores.end());
    const auto last_chosen = peek.order.begin() + (k_ - 1);
    std::ranges::nth_element(peek.order, last_chosen, std::greater());
    for (float& score : scores) score -= *last_chosen;
  }
  return absl::OkStatus();
}

absl::Status MoeLayer::Route(const Pass& pass, const float* x) const {
  const Activations& a = pass.scratch;
  if (router_.data == nullptr) {
    std::fill_n(a.chosen, pass.rows, 0);
    std::fill_n(a.chosen_weights, pass.rows, 1.0f);
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(RouterLogits(pass, x, a.router_logits));
  return pass.ops.route({.logits = a.router_logits,
                         .choice_bias = choice_bias_,
                         .tokens = pass.rows,
                         .experts = experts_,
                         .k = k_,
                         .rule = config_.router,
                         .chosen = a.chosen,
                         .weights = a.chosen_weights},
                        pass.stream);
}

absl::Status MoeLayer::RunShared(const Pass& pass, const float* x) {
  const Activations& a = pass.scratch;
  std::iota(a.row_index, a.row_index + pass.rows, 0);
  const kernels::ExpertRows all{
      .blob = shared_blob_, .begin = 0, .end = pass.rows};
  RETURN_IF_ERROR(pass.ops.grouped_ffn(
      {.x = x,
       .x_stride = config_.dim,
       .shape = shared_shape_,
       .activation = config_.activation,
       .groups = &all,
       .group_count = 1,
       .x_row = a.row_index,
       .slot = a.row_index,
       .y = a.expert_out + int64_t{pass.rows} * k_ * config_.dim,
       .scratch = a.expert_inner,
       .codes = a.codes},
      pass.stream));
  if (pass.input_tap != nullptr) {
    (*pass.input_tap)({.layer = layer_,
                       .matrix = "shared_gate",
                       .x = x,
                       .x_stride = config_.dim,
                       .rows = pass.rows,
                       .cols = config_.dim});
    (*pass.input_tap)({.layer = layer_,
                       .matrix = "shared_down",
                       .x = a.expert_inner,
                       .x_stride = 2 * int64_t{shared_shape_.inner},
                       .rows = pass.rows,
                       .cols = shared_shape_.inner});
  }
  if (shared_gate_.data == nullptr) {
    std::fill_n(a.shared_weights, pass.rows, 1.0f);
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(pass.ops.matmul({.x = x,
                                   .x_stride = config_.dim,
                                   .w = shared_gate_,
                                   .y = a.shared_weights,
                                   .y_stride = 1,
                                   .tokens = pass.rows},
                                  pass.stream));
  for (int32_t row = 0; row < pass.rows; ++row) {
    a.shared_weights[row] = 1 / (1 + kernels::Exp(-a.shared_weights[row]));
  }
  return absl::OkStatus();
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

absl::Status MoeLayer::RunExperts(const Pass& pass, const float* x) {
  const Activations& a = pass.scratch;
  ExpertCache::Acquisition acquisition =
      cache_.Acquire(layer_, needed_, counts_, pass.rows, pass.phase);
  // The link is busy with this layer's loads: who comes next is guessed when
  // there is nothing else to do, or at once where the link is idle.
  bool told = pass.after_route == nullptr;
  while (true) {
    if (!told && (!acquisition.loads() || acquisition.waits())) {
      (*pass.after_route)(layer_);
      told = true;
    }
    const std::span<const ReadyExpert> ready =
        acquisition.Next(pass.watch.stop);
    RETURN_IF_ERROR(Proceed(pass.watch));
    if (ready.empty()) return absl::OkStatus();
    groups_.clear();
    group_experts_.clear();
    for (const ReadyExpert& expert : ready) {
      if (!expert.status.ok()) {
        FailExpert(pass, expert);
        continue;
      }
      groups_.push_back({.blob = expert.blob,
                         .begin = first_entry_[expert.expert],
                         .end = first_entry_[expert.expert + 1]});
      group_experts_.push_back(expert.expert);
    }
    RETURN_IF_ERROR(pass.ops.grouped_ffn(
        {.x = x,
         .x_stride = config_.dim,
         .shape = shape_,
         .activation = config_.activation,
         .groups = groups_.data(),
         .group_count = static_cast<int32_t>(groups_.size()),
         .x_row = a.entry_row,
         .slot = a.entry_slot,
         .y = a.expert_out,
         .scratch = a.expert_inner,
         .codes = a.codes,
         .x_codes = a.x_codes,
         .x_rows = pass.rows},
        pass.stream));
    if (pass.input_tap != nullptr) TapExperts(pass, x);
  }
}

void MoeLayer::TapExperts(const Pass& pass, const float* x) const {
  const Activations& a = pass.scratch;
  for (size_t g = 0; g < groups_.size(); ++g) {
    const kernels::ExpertRows& group = groups_[g];
    (*pass.input_tap)({.layer = layer_,
                       .matrix = "experts.gate",
                       .expert = group_experts_[g],
                       .x = x,
                       .x_stride = config_.dim,
                       .x_row = a.entry_row + group.begin,
                       .rows = group.end - group.begin,
                       .cols = shape_.dim});
    const int64_t stride = 2 * int64_t{shape_.inner};
    (*pass.input_tap)({.layer = layer_,
                       .matrix = "experts.down",
                       .expert = group_experts_[g],
                       .x = a.expert_inner + group.begin * stride,
                       .x_stride = stride,
                       .rows = group.end - group.begin,
                       .cols = shape_.inner});
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
      const SequenceRows& sequence = pass.sequences[s];
      if (row >= sequence.first_row &&
          row < sequence.first_row + sequence.rows) {
        pass.sequence_status[s].Update(expert.status);
      }
    }
  }
}

}  // namespace bullpen
