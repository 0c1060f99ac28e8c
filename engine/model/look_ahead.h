#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "engine/experts/prefetcher.h"
#include "engine/model/layers.h"
#include "engine/model/model.h"

namespace bullpen {

RoutingShape RoutingShapeOf(const ModelConfig& config);

// Shows a model's Prefetcher the tokens, routers and choices of each step.
// Engine thread.
class LookAhead {
 public:
  // InvalidArgument names the option, its value and what is allowed.
  static absl::Status Check(const ModelOptions& options);

  // The options hold Check. All that is given outlives it.
  LookAhead(const ModelConfig& config, const ModelOptions& options,
            std::span<const MoeLayer> layers, ExpertCache& cache,
            Metrics& metrics);

  // scratch.hidden has the embeddings of `ids`, which live until EndStep.
  void BeginStep(const Pass& pass, std::span<const int32_t> ids);
  // scratch.chosen has the layer's choice.
  void AfterRoute(const Pass& pass, int32_t layer);
  void EndStep(const Pass& pass, double seconds);

 private:
  std::span<const float> Margins(const Pass& pass, int32_t layer);

  const ModelConfig& config_;
  std::span<const MoeLayer> layers_;
  Prefetcher prefetcher_;
  std::vector<RequestRows> requests_;  // of the step
  RouterPeek peek_;
};

}  // namespace bullpen
