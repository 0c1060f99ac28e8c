#include "engine/experts/trace_steps.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

namespace bullpen {
namespace {

// Gives each choice the number of its step. A layer has one choice of a
// decoded token; a second one with the same numbers belongs to another request
// and so to a step of its own.
class StepNumbers {
 public:
  explicit StepNumbers(int32_t layers) : layers_(layers) {}

  int64_t Of(const RoutingTrace::Choice& choice) {
    const bool decode = choice.phase == Phase::kDecode;
    const Key key{choice.turn, decode, decode ? choice.step : 0};
    Known& known = known_[key];
    if (known.steps.empty()) known.uses.resize(static_cast<size_t>(layers_));
    const size_t use = decode ? known.uses[choice.layer]++ : 0;
    if (use == known.steps.size()) known.steps.push_back(next_++);
    return known.steps[use];
  }

 private:
  using Key = std::tuple<int32_t, bool, int32_t>;  // turn, decode, step
  struct Known {
    std::vector<int64_t> steps;
    std::vector<uint32_t> uses;  // by layer
  };
  int32_t layers_;
  int64_t next_ = 0;
  std::map<Key, Known> known_;
};

}  // namespace

TraceSteps::TraceSteps(const RoutingTrace& trace, bool with_prefill,
                       bool with_decode)
    : trace_(trace) {
  const std::span<const RoutingTrace::Choice> choices = trace.choices();
  StepNumbers numbers(trace.layers());
  std::vector<int64_t> step_of(choices.size(), -1);
  for (size_t i = 0; i < choices.size(); ++i) {
    const bool prefill = choices[i].phase == Phase::kPrefill;
    if (prefill ? with_prefill : with_decode) {
      step_of[i] = numbers.Of(choices[i]);
      order_.push_back(static_cast<int64_t>(i));
    }
  }
  std::ranges::sort(order_, {}, [&](int64_t i) {
    return std::tuple(step_of[i], choices[i].layer, i);
  });
  int64_t last_step = -1;
  for (size_t at = 0; at < order_.size(); ++at) {
    const RoutingTrace::Choice& choice = choices[order_[at]];
    const int64_t step = step_of[order_[at]];
    const bool new_step = step != last_step;
    if (new_step) {
      steps_.push_back({.phase = choice.phase,
                        .turn = choice.turn,
                        .first_run = static_cast<int64_t>(runs_.size())});
      last_step = step;
    }
    if (new_step || runs_.back().layer != choice.layer) {
      runs_.push_back(
          {.layer = choice.layer, .first = static_cast<int64_t>(at)});
      ++steps_.back().runs;
    }
    ++runs_.back().rows;
  }
}

void RunNeeds::Assign(const TraceSteps& steps, const TraceSteps::Run& run) {
  for (const int32_t expert : experts_) place_[expert] = -1;
  experts_.clear();
  counts_.clear();
  for (int32_t row = 0; row < run.rows; ++row) {
    for (const int32_t expert : steps.chosen(run, row)) {
      int32_t& place = place_[expert];
      if (place < 0) {
        place = static_cast<int32_t>(experts_.size());
        experts_.push_back(expert);
        counts_.push_back(0);
      }
      ++counts_[place];
    }
  }
}

}  // namespace bullpen
