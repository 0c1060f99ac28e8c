#include "engine/model/look_ahead.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace bullpen {
namespace {

// Tables get a hundredth of what experts have, so that the budget is kept; what
// a small model needs is lost in what the process takes anyway.
constexpr int64_t kLeastTableBytes = int64_t{512} << 10;

PrefetchConfig ConfigOf(const ModelConfig& config, const ModelOptions& options,
                        int64_t cache_bytes) {
  PrefetchConfig prefetch{.shape = RoutingShapeOf(config),
                          .always = options.prefetch == "on",
                          .profile = options.profile};
  PredictorConfig& predictor = prefetch.predictor;
  predictor.evidence = *ParseEvidence(options.predictors);
  predictor.horizon = options.prefetch_horizon;
  predictor.min_probability = 0.15f;
  predictor.table_bytes = std::min(
      predictor.table_bytes, std::max(kLeastTableBytes, cache_bytes / 100));
  return prefetch;
}

}  // namespace

RoutingShape RoutingShapeOf(const ModelConfig& config) {
  RoutingShape shape{
      .layers = {}, .max_rows = Prefetcher::kMaxRows, .vocab = config.vocab};
  for (int32_t l = 0; l < std::ssize(config.layers); ++l) {
    shape.layers.push_back(
        {.experts = config.experts_in(l), .top_k = config.k_in(l)});
  }
  return shape;
}

absl::Status LookAhead::Check(const ModelOptions& options) {
  const std::string& prefetch = options.prefetch;
  if (prefetch != "auto" && prefetch != "on" && prefetch != "off") {
    return absl::InvalidArgumentError(
        absl::StrCat("prefetch '", prefetch, "' is not one of auto, on, off"));
  }
  if (options.prefetch_horizon < 1 || options.prefetch_horizon > 16) {
    return absl::InvalidArgumentError(absl::StrCat(
        "prefetch_horizon ", options.prefetch_horizon, " is not in 1..16"));
  }
  return ParseEvidence(options.predictors).status();
}

LookAhead::LookAhead(const ModelConfig& config, const ModelOptions& options,
                     std::span<const MoeLayer> layers, ExpertCache& cache,
                     Metrics& metrics)
    : config_(config),
      layers_(layers),
      prefetcher_(ConfigOf(config, options, cache.arena_bytes()), cache,
                  metrics) {
  const size_t rows = static_cast<size_t>(Prefetcher::kMaxRows);
  peek_.normed.resize(rows * config.dim);
  peek_.margins.resize(rows * config.experts);
  peek_.order.reserve(static_cast<size_t>(config.experts));
}

std::span<const float> LookAhead::Margins(const Pass& pass, int32_t layer) {
  if (!layers_[layer].Peek(pass, peek_).ok()) return {};
  const size_t scores =
      static_cast<size_t>(pass.rows) * config_.experts_in(layer);
  const std::span<float> margins = std::span(peek_.margins).first(scores);
  if (pass.reroute != nullptr && pass.reroute->look_ahead) {
    pass.reroute->look_ahead(layer, margins);
  }
  return margins;
}

void LookAhead::BeginStep(const Pass& pass, std::span<const int32_t> ids) {
  requests_.clear();
  for (const SequenceRows& sequence : pass.sequences) {
    if (sequence.request < 0) continue;
    requests_.push_back({.request = sequence.request,
                         .first_row = sequence.first_row,
                         .rows = sequence.rows,
                         .begins = sequence.first_position == 0});
  }
  prefetcher_.BeginStep(
      {.ids = ids, .requests = requests_, .phase = pass.phase},
      [&](int32_t layer, int32_t) { return Margins(pass, layer); });
}

void LookAhead::AfterRoute(const Pass& pass, int32_t layer) {
  const size_t entries = static_cast<size_t>(pass.rows) * config_.k_in(layer);
  prefetcher_.AfterRoute(
      {.layer = layer,
       .chosen = {pass.scratch.chosen, entries},
       .rows = pass.rows,
       .phase = pass.phase},
      [&](int32_t ahead, int32_t) { return Margins(pass, ahead); });
}

void LookAhead::EndStep(const Pass& pass, double seconds) {
  prefetcher_.EndStep(seconds, pass.rows, pass.phase);
}

}  // namespace bullpen
