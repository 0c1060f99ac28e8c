#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/experts/trace.h"

namespace bullpen {

// A trace as the steps of an engine: a prompt is one step, a decoded token one
// of its own, in the order in which they first appear; in each step the layers
// ascend. Borrows the trace.
class TraceSteps {
 public:
  // One layer of one step.
  struct Run {
    int32_t layer = 0;
    int64_t first = 0;  // into the order of choices
    int32_t rows = 0;   // tokens
  };
  struct Step {
    Phase phase = Phase::kDecode;
    int32_t turn = 0;
    int64_t first_run = 0;
    int32_t runs = 0;
  };

  TraceSteps(const RoutingTrace& trace, bool with_prefill, bool with_decode);

  std::span<const Step> steps() const { return steps_; }
  std::span<const Run> runs(const Step& step) const {
    return std::span(runs_).subspan(step.first_run, step.runs);
  }
  std::span<const Run> all_runs() const { return runs_; }
  const RoutingTrace::Choice& choice(const Run& run, int32_t row) const {
    return trace_.choices()[order_[run.first + row]];
  }
  std::span<const int32_t> chosen(const Run& run, int32_t row) const {
    return trace_.chosen(choice(run, row));
  }
  const RoutingTrace& trace() const { return trace_; }

 private:
  const RoutingTrace& trace_;
  std::vector<Step> steps_;
  std::vector<Run> runs_;
  std::vector<int64_t> order_;  // of choices: by step, layer, place
};

// The distinct experts of one run, in the order of their first use, with how
// many of its tokens use each: as ExpertCache::Acquire is told. Keeps its
// memory from run to run.
class RunNeeds {
 public:
  explicit RunNeeds(int32_t experts)
      : place_(static_cast<size_t>(experts), -1) {}

  void Assign(const TraceSteps& steps, const TraceSteps::Run& run);

  std::span<const int32_t> experts() const { return experts_; }
  std::span<const int32_t> counts() const { return counts_; }
  bool contains(int32_t expert) const { return place_[expert] >= 0; }

 private:
  std::vector<int32_t> experts_;
  std::vector<int32_t> counts_;
  std::vector<int32_t> place_;  // by expert, into the above; -1: none
};

}  // namespace bullpen
