#pragma once

#include <cstdint>
#include <span>

#include "absl/functional/function_ref.h"
#include "engine/experts/predictor_config.h"

namespace bullpen {

// Which guesses are loaded ahead: those that move more in the time in which
// the link has nothing else to do than they hold up when they are wrong, as
// measured in the steps of late. Pure: the caller measures; the live engine and
// the trace simulator share it. One thread.
class PrefetchRule {
 public:
  // Guesses less likely than `min_probability` are worth nothing.
  explicit PrefetchRule(double min_probability)
      : min_probability_(min_probability) {}

  // Of one decode step of all layers.
  struct Step {
    double seconds = 0;
    double demand_seconds = 0;  // of these: a demand was under way
    double busy_seconds = 0;    // of the link
    int64_t bytes = 0;          // that it moved
    int32_t layers = 0;
    // Loads by guesses that were used: by their probabilities, and in fact.
    double uses_expected = 0;
    double uses = 0;
  };
  void EndStep(const Step& step);

  // Bytes of guesses that the link can move until a layer runs that is
  // `horizon` layers ahead, when those of `under_way` are ahead of them.
  double Room(int32_t horizon, int64_t blob_bytes, int64_t under_way) const;
  // Where the guesses of a layer go.
  struct Layer {
    int64_t blob_bytes = 0;
    double room = 0;  // infinite: loads take no time, and all guesses pay
    // True if the expert is in a slot: then it keeps that until its layer runs.
    absl::FunctionRef<bool(int32_t expert)> keep;
    // Begins to load it; false: not now.
    absl::FunctionRef<bool(int32_t expert)> load;
  };
  // Loads what pays of `guesses` (best first), evicting nobody who is wanted as
  // much. How many uses the loads that have begun promise.
  double Load(std::span<const ExpertGuess> guesses, const Layer& layer) const;
  // What to load a guess is expected to save, as a part of an expert's load:
  // also, how likely another expert must be wanted that is not evicted for it.
  // 0 or less: it does not pay.
  double Worth(double probability, int64_t blob_bytes, double room) const;

 private:
  double Trust() const;

  double min_probability_;
  // Decayed; 0: not known.
  double link_rate_ = 0;      // bytes a second, while it moves any
  double free_seconds_ = 0;   // of the link, for each layer: no demand waits
  double uses_expected_ = 0;  // these two are decayed sums
  double uses_ = 0;
};

}  // namespace bullpen
