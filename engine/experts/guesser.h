#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "engine/experts/predictor.h"
#include "engine/experts/replay.h"
#include "engine/experts/trace_steps.h"

namespace bullpen {

// Guesses in a replay. Virtual because an oracle stands beside the predictor
// that the live engine has.
class Guesser {
 public:
  virtual ~Guesser() = default;
  // A run of the step is routed.
  virtual void Observe(const TraceSteps::Run& run) = 0;
  // For the run `horizon` layers ahead in the same step, best first; until the
  // next call.
  virtual std::span<const ExpertGuess> Guess(const TraceSteps::Run& ahead,
                                             int32_t horizon) = 0;
};

// Null for GuesserKind::kNone. Borrows `steps`.
std::unique_ptr<Guesser> MakeGuesser(const TraceSteps& steps,
                                     const ReplayConfig& config);

}  // namespace bullpen
