#include "tools/bench/lockstep.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace bullpen {
namespace {

// Enough to call nearly every expert of a layer.
constexpr int32_t kWarmRows = 64;
constexpr int kWarmChunks = 8;

}  // namespace

Lockstep::Lockstep(Model& model, const ModelCost& cost, int32_t sequences)
    : model_(model),
      cost_(cost),
      seen_(static_cast<size_t>(std::max(1, model.config().experts))) {
  for (int32_t s = 0; s < sequences; ++s) {
    tables_.push_back(FixedKvTables(model.kv_groups(), model.kv_limits(), s));
  }
  ForwardTap tap;
  tap.routing = [this](int layer, std::span<const int32_t> experts,
                       std::span<const float>) { Count(layer, experts); };
  model_.set_tap(std::move(tap));
}

Lockstep::~Lockstep() { model_.set_tap({}); }

void Lockstep::Count(int layer, std::span<const int32_t> experts) {
  std::fill(seen_.begin(), seen_.end(), false);
  for (const int32_t expert : experts) {
    if (seen_[expert]) continue;
    seen_[expert] = true;
    ++step_.chosen;
    step_.bytes += cost_.expert_bytes(layer);
  }
}

absl::StatusOr<ForwardResult> Lockstep::Forward(const ForwardBatch& batch) {
  ASSIGN_OR_RETURN(ForwardResult result, model_.Forward(batch));
  for (const absl::Status& status : result.sequence_status) {
    RETURN_IF_ERROR(status);
  }
  return result;
}

absl::StatusOr<Lockstep::Step> Lockstep::Decode(int32_t position) {
  const int32_t count = static_cast<int32_t>(tables_.size());
  ids_.resize(tables_.size());
  rows_.resize(tables_.size());
  std::iota(rows_.begin(), rows_.end(), 0);
  sequences_.clear();
  step_ = {.bytes = cost_.resident_bytes() + count * cost_.KvBytes(position)};
  for (int32_t s = 0; s < count; ++s) {
    ids_[s] = static_cast<int32_t>(
        random_() % static_cast<uint32_t>(model_.config().vocab));
    sequences_.push_back({.tables = tables_[s],
                          .first_row = s,
                          .rows = 1,
                          .first_position = position});
  }
  for (int l = 0; l < static_cast<int>(model_.config().layers.size()); ++l) {
    // A dense layer is one expert, of which the tap does not tell.
    if (!model_.config().layers[l].moe) step_.bytes += cost_.expert_bytes(l);
  }
  RETURN_IF_ERROR(Forward({.ids = ids_,
                           .sequences = sequences_,
                           .logit_rows = rows_,
                           .phase = Phase::kDecode})
                      .status());
  return step_;
}

absl::Status Lockstep::Prefill(int32_t rows) {
  for (int32_t begin = 0; begin < rows; begin += model_.max_batch_tokens()) {
    const int32_t chunk = std::min(rows - begin, model_.max_batch_tokens());
    ids_.resize(static_cast<size_t>(chunk));
    for (int32_t& id : ids_) {
      id = static_cast<int32_t>(random_() %
                                static_cast<uint32_t>(model_.config().vocab));
    }
    const SequenceRows sequence{.tables = tables_[0],
                                .rows = chunk,
                                .first_position = begin,
                                .prompt = rows};
    const int32_t last = chunk - 1;
    const size_t logits = begin + chunk == rows ? 1 : 0;
    RETURN_IF_ERROR(Forward({.ids = ids_,
                             .sequences = {&sequence, 1},
                             .logit_rows = {&last, logits},
                             .phase = Phase::kPrefill})
                        .status());
  }
  return absl::OkStatus();
}

absl::Status Lockstep::Warm() {
  const int32_t rows =
      std::min({model_.context(), model_.max_batch_tokens(), kWarmRows});
  uint64_t loaded = model_.cache_snapshot().bytes_loaded;
  for (int i = 0; i < kWarmChunks; ++i) {
    RETURN_IF_ERROR(Prefill(rows));
    const uint64_t now = model_.cache_snapshot().bytes_loaded;
    if (i > 0 && now == loaded) break;
    loaded = now;
  }
  return absl::OkStatus();
}

bool HoldsAllExperts(const Model& model) {
  for (int l = 0; l < static_cast<int>(model.config().layers.size()); ++l) {
    if (model.memory().slots[l] < model.config().experts_in(l)) return false;
  }
  return true;
}

}  // namespace bullpen
