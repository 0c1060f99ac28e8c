#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/metrics.h"
#include "engine/experts/cache.h"
#include "engine/experts/predictor.h"
#include "engine/experts/prefetch_governor.h"
#include "engine/experts/prefetch_rule.h"
#include "engine/experts/request_follower.h"

namespace bullpen {

struct PrefetchConfig {
  RoutingShape shape = {};
  PredictorConfig predictor = {};
  bool always = false;  // whether or not it pays: for tests and benches
  // Where what was learnt is kept across restarts; see profile.h. Empty:
  // nowhere.
  std::filesystem::path profile = {};
};

// Loads experts before their layers ask for them: guesses who is wanted in the
// coming layers, and hands to the cache what the idle link can move until then.
// Changes what is where, never what is computed. Engine thread.
class Prefetcher {
 public:
  // A step of more tokens wants most experts anyway: it loads nothing ahead.
  static constexpr int32_t kMaxRows = PrefetchGovernor::kMaxRows;

  // What the router of a coming layer gives for the hidden states at hand: see
  // RoutingPredictor::Query::router_margins.
  using RouterPeek =
      absl::FunctionRef<std::span<const float>(int32_t layer, int32_t rows)>;

  // `cache` and `metrics` outlive it. Starts from the profile, if there is one;
  // one that does not fit is reported and replaced at the end.
  Prefetcher(const PrefetchConfig& config, ExpertCache& cache,
             Metrics& metrics);
  ~Prefetcher();  // Writes the profile.

  // A step of tokens with these ids begins, whose hidden states are their
  // embeddings: loads for the first layers, which no look from a layer before
  // reaches early enough. The caller keeps the ids until the step ends.
  struct Begun {
    std::span<const int32_t> ids;
    std::span<const RequestRows> requests = {};  // that are to be followed
    Phase phase = Phase::kDecode;
  };
  void BeginStep(const Begun& begun, RouterPeek peek);

  // `layer` has routed `rows` tokens, [rows, k] of `chosen`, and has asked the
  // cache for their experts, which load first.
  struct Routed {
    int32_t layer = 0;
    std::span<const int32_t> chosen;
    int32_t rows = 0;
    Phase phase = Phase::kDecode;
  };
  void AfterRoute(const Routed& routed, RouterPeek peek);

  // All layers have run; 0 seconds: or some, as the step was given up.
  void EndStep(double seconds, int32_t rows, Phase phase);

 private:
  struct Gauges {
    prometheus::Gauge* precision;
    prometheus::Gauge* recall;
  };
  bool LoadsAhead(int32_t rows, Phase phase) const;
  // Loads for a layer that is `horizon` layers ahead what the link can move
  // until it runs.
  struct Ahead {
    int32_t layer = 0;
    int32_t horizon = 1;
    int32_t rows = 0;
  };
  void Guess(const Ahead& ahead, RouterPeek peek);
  void Publish();

  PrefetchConfig config_;
  ExpertCache& cache_;
  Metrics& metrics_;
  bool uses_routers_;
  RoutingPredictor predictor_;
  RequestFollower requests_;
  PrefetchGovernor governor_;
  PrefetchRule rule_;
  // At the end of the last step.
  double busy_seconds_ = 0;
  uint64_t bytes_loaded_ = 0;
  double demand_seconds_ = 0;
  uint64_t guesses_used_ = 0;
  double uses_expected_ = 0;  // of the guesses since then
  int64_t steps_ = 0;
  int64_t begun_ = 0;
  std::vector<Gauges> gauges_;  // by horizon, then kind of evidence
  struct Cost {
    prometheus::Counter* seconds;
    double published = 0;  // of the meter's
  };
  std::vector<Cost> costs_;  // as CostMeter has them
};

}  // namespace bullpen
