#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/metrics.h"
#include "engine/experts/expert.h"
#include "engine/experts/layer_slots.h"
#include "engine/experts/oracle_cache.h"

namespace bullpen {

// How far a live cache is from what could be had: keeps the decode steps of the
// last tokens, and computes what other rules would have hit on them with the
// same slots, beginning with what the cache held. Each layer has a window of
// its own, and the windows of the layers end at different tokens, so that no
// step pays for all of them. A step of several requests counts as one token of
// all their experts. Memory is bounded by the window. One thread.
class OracleWindow {
 public:
  // Windows of `tokens` tokens, at least 1.
  OracleWindow(const ExpertCatalog& catalog, int32_t tokens, Metrics& metrics);

  // `layer` is about to decode: where its window begins, so does what other
  // rules hold. To be called before the step's uses and loads change `slots`.
  void BeginStep(int32_t layer, const LayerSlots& slots);
  // It decodes `tokens` tokens with distinct `experts`, of which `hits` were
  // there.
  struct Step {
    int32_t layer = 0;
    std::span<const int32_t> experts;
    int32_t tokens = 0;
    int32_t hits = 0;
  };
  void Record(const Step& step);
  // Where the layer's window is complete: judges it, publishes, begins anew.
  // The other rules have `slots` slots, from the most recent of what was held
  // on: where slots move between layers, each layer's fair share. Some ten
  // microseconds for 256 tokens; best called while loads are under way.
  void Settle(int32_t layer, int32_t slots);

  struct Hits {
    int64_t lookups = 0;
    int64_t live = 0;
    int64_t lru = 0;
    int64_t segment = 0;
    int64_t belady = 0;
  };
  // Of the last complete window of every layer.
  const Hits& hits() const { return hits_; }

 private:
  struct Layer {
    std::vector<int32_t> experts = {};  // of the window's steps, in a row
    std::vector<size_t> ends = {};      // of each step, in `experts`
    std::vector<int32_t> held = {};     // before them, least recent first
    int32_t tokens = 0;
    int32_t window = 0;  // tokens until it is complete
    int64_t live_hits = 0;
    Hits judged = {};
    prometheus::Gauge* segment_routing = nullptr;
    prometheus::Gauge* segment_hits = nullptr;
  };
  void Judge(Layer& layer, int32_t experts, int32_t slots);
  void Publish();

  const ExpertCatalog& catalog_;
  int32_t window_;
  int32_t last_layer_ = 0;  // that routes: the sums are published with it
  std::vector<Layer> layers_;
  OracleCache oracle_;
  Hits hits_;
  std::vector<std::span<const int32_t>> steps_;  // scratch
  prometheus::Gauge& live_;
  prometheus::Gauge& lru_;
  prometheus::Gauge& segment_;
  prometheus::Gauge& belady_;
};

}  // namespace bullpen
