#include "engine/experts/oracle_window.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/experts/analysis.h"

namespace bullpen {
namespace {

// The segment of SRP and SCH, in tokens: what arXiv 2505.16056 compares models
// by.
constexpr int32_t kSegment = 16;

int32_t MostExperts(const ExpertCatalog& catalog) {
  size_t most = 1;
  for (const ExpertCatalog::Layer& layer : catalog.layers) {
    most = std::max(most, layer.experts.size());
  }
  return static_cast<int32_t>(most);
}

double Ratio(int64_t hits, int64_t lookups) {
  return HitCounts{.lookups = lookups, .hits = hits}.rate();
}

}  // namespace

OracleWindow::OracleWindow(const ExpertCatalog& catalog, int32_t tokens,
                           Metrics& metrics)
    : catalog_(catalog),
      window_(tokens),
      oracle_(MostExperts(catalog)),
      live_(metrics.oracle_hits.Add({{"rule", "live"}})),
      lru_(metrics.oracle_hits.Add({{"rule", "lru"}})),
      segment_(metrics.oracle_hits.Add({{"rule", "segment"}})),
      belady_(metrics.oracle_hits.Add({{"rule", "belady"}})) {
  CHECK(tokens >= 1) << tokens;
  const int64_t layers = std::ssize(catalog.layers);
  layers_.reserve(catalog.layers.size());
  for (int64_t l = 0; l < layers; ++l) {
    Layer& layer = layers_.emplace_back();
    // The first windows differ, and so do the ends of all that follow.
    layer.window =
        static_cast<int32_t>((tokens * (l + 1) + layers - 1) / layers);
    if (catalog.layers[l].experts.size() < 2) continue;
    const prometheus::Labels label = {{"layer", absl::StrCat(l)}};
    layer.segment_routing = &metrics.segment_routing.Add(label);
    layer.segment_hits = &metrics.segment_hits.Add(label);
    last_layer_ = static_cast<int32_t>(l);
  }
}

void OracleWindow::BeginStep(int32_t index, const LayerSlots& slots) {
  Layer& layer = layers_[index];
  if (slots.experts() < 2 || !layer.ends.empty()) return;
  for (int32_t slot = 0; slot < slots.slots(); ++slot) {
    if (slots.expert(slot) >= 0) layer.held.push_back(slots.expert(slot));
  }
  std::ranges::sort(layer.held, {}, [&slots](int32_t expert) {
    return slots.policy().LastUse(expert);
  });
}

void OracleWindow::Record(const Step& step) {
  Layer& layer = layers_[step.layer];
  if (catalog_.layers[step.layer].experts.size() < 2) return;
  layer.experts.insert(layer.experts.end(), step.experts.begin(),
                       step.experts.end());
  layer.ends.push_back(layer.experts.size());
  layer.tokens += step.tokens;
  layer.live_hits += step.hits;
}

void OracleWindow::Settle(int32_t index, int32_t slots) {
  Layer& layer = layers_[index];
  if (layer.ends.empty() || layer.tokens < layer.window) return;
  Judge(layer, static_cast<int32_t>(catalog_.layers[index].experts.size()),
        slots);
  if (index == last_layer_) Publish();
  layer.experts.clear();
  layer.ends.clear();
  layer.held.clear();
  layer.tokens = 0;
  layer.window = window_;
  layer.live_hits = 0;
}

void OracleWindow::Judge(Layer& layer, int32_t experts, int32_t slots) {
  steps_.clear();
  size_t begin = 0;
  for (const size_t end : layer.ends) {
    steps_.push_back(std::span(layer.experts).subspan(begin, end - begin));
    begin = end;
  }
  const std::span<const int32_t> held = layer.held;
  const OracleCache::Stream stream{
      .steps = steps_,
      .slots = slots,
      .held = held.last(std::min(held.size(), static_cast<size_t>(slots)))};
  const HitCounts lru = oracle_.Segment(stream, 0);
  Hits now{.lookups = lru.lookups,
           .live = layer.live_hits,
           .lru = lru.hits,
           .segment = lru.hits,
           .belady = lru.hits};
  // Where nothing ever goes, all rules are one.
  if (slots < experts) {
    now.segment = oracle_.Segment(stream, kSegment).hits;
    now.belady = oracle_.Belady(stream).hits;
  }
  hits_.lookups += now.lookups - layer.judged.lookups;
  hits_.live += now.live - layer.judged.live;
  hits_.lru += now.lru - layer.judged.lru;
  hits_.segment += now.segment - layer.judged.segment;
  hits_.belady += now.belady - layer.judged.belady;
  layer.judged = now;
  SegmentCounts routing(kSegment);
  routing.Add(experts, steps_);
  if (const auto best = routing.Best(); best.has_value()) {
    layer.segment_routing->Set(best->srp);
  }
  layer.segment_hits->Set(Ratio(now.segment, now.lookups));
}

void OracleWindow::Publish() {
  live_.Set(Ratio(hits_.live, hits_.lookups));
  lru_.Set(Ratio(hits_.lru, hits_.lookups));
  segment_.Set(Ratio(hits_.segment, hits_.lookups));
  belady_.Set(Ratio(hits_.belady, hits_.lookups));
}

}  // namespace bullpen
