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
  // A step begins: until one of its runs is routed, the first is one ahead.
  virtual void BeginStep(const TraceSteps::Step& step) = 0;
  // A run of the step is routed.
  virtual void Observe(const TraceSteps::Run& run) = 0;
  // How many runs ahead it guesses when a step begins.
  virtual int32_t reach() const = 0;
  // For the run `horizon` ahead in the same step, best first; until the next
  // call.
  virtual std::span<const ExpertGuess> Guess(const TraceSteps::Run& ahead,
                                             int32_t horizon) = 0;
};

// Null for GuesserKind::kNone. Borrows `steps`.
std::unique_ptr<Guesser> MakeGuesser(const TraceSteps& steps,
                                     const ReplayConfig& config);

}  // namespace bullpen
