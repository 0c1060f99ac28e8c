#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "absl/status/statusor.h"
#include "engine/model/model.h"

namespace bullpen {

struct Perplexity {
  double mean_nll = 0;  // nats for each scored token
  int64_t scored = 0;   // tokens
  int64_t windows = 0;
  double seconds = 0;  // that it took

  double value() const;  // exp(mean_nll)
};

struct PerplexityOptions {
  int32_t window = 512;
  // Called after each step with the tokens that are done and all of them; may
  // be empty.
  std::function<void(int64_t done, int64_t total)> progress;
};

// How well `model` foresees a text: it is cut into windows, each computed for
// itself, and every token but a window's first is scored. A window of one
// token has nothing to score. Sums in double, in order. The calling thread is
// the model's. InvalidArgument: fewer than two tokens, a window that the
// context does not hold, an id outside of the vocabulary.
absl::StatusOr<Perplexity> MeasurePerplexity(Model& model,
                                             std::span<const int32_t> ids,
                                             const PerplexityOptions& options);

}  // namespace bullpen
