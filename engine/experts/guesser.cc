#include "engine/experts/guesser.h"

#include <algorithm>
#include <random>
#include <vector>

#include "engine/experts/prefetch_governor.h"

namespace bullpen {
namespace {

class LearnedGuesser : public Guesser {
 public:
  LearnedGuesser(const TraceSteps& steps, const PredictorConfig& config)
      : steps_(steps), predictor_(Shape(steps), config) {}

  void BeginStep(const TraceSteps::Step& step) override {
    ids_.clear();
    const TraceSteps::Run& first = steps_.runs(step)[0];
    for (int32_t row = 0; steps_.trace().vocab() > 0 && row < first.rows;
         ++row) {
      ids_.push_back(steps_.choice(first, row).token);
    }
    predictor_.BeginStep({.ids = ids_});
  }

  int32_t reach() const override { return predictor_.reach(); }

  void Observe(const TraceSteps::Run& run) override {
    // The predictor wants as many experts of each token; a trace may have a
    // token with fewer.
    chosen_.clear();
    int32_t rows = 0;
    const int32_t top_k = steps_.trace().top_k();
    for (int32_t row = 0; row < run.rows; ++row) {
      const std::span<const int32_t> chosen = steps_.chosen(run, row);
      if (static_cast<int32_t>(chosen.size()) != top_k) continue;
      chosen_.insert(chosen_.end(), chosen.begin(), chosen.end());
      ++rows;
    }
    if (rows > 0) predictor_.Observe(run.layer, chosen_, rows);
  }

  std::span<const ExpertGuess> Guess(const TraceSteps::Run& ahead,
                                     int32_t horizon) override {
    return predictor_.Guess({.layer = ahead.layer, .horizon = horizon});
  }

 private:
  static RoutingShape Shape(const TraceSteps& steps) {
    const RoutingTrace& trace = steps.trace();
    RoutingShape shape;
    shape.layers.resize(static_cast<size_t>(trace.layers()),
                        {.experts = trace.experts(), .top_k = trace.top_k()});
    shape.max_rows = PrefetchGovernor::kMaxRows;
    shape.vocab = trace.vocab();
    return shape;
  }

  const TraceSteps& steps_;
  RoutingPredictor predictor_;
  std::vector<int32_t> ids_;     // of the step
  std::vector<int32_t> chosen_;  // scratch
};

class OracleGuesser : public Guesser {
 public:
  OracleGuesser(const TraceSteps& steps, const ReplayConfig& config)
      : steps_(steps),
        needs_(steps.trace().experts()),
        recall_(config.oracle_recall),
        horizon_(config.predictor.horizon),
        random_(config.seed) {}

  void BeginStep(const TraceSteps::Step&) override {}
  int32_t reach() const override { return horizon_; }
  void Observe(const TraceSteps::Run&) override {}

  std::span<const ExpertGuess> Guess(const TraceSteps::Run& ahead,
                                     int32_t) override {
    needs_.Assign(steps_, ahead);
    guesses_.clear();
    for (const int32_t expert : needs_.experts()) {
      const bool right = Uniform() < recall_;
      const int32_t other = static_cast<int32_t>(
          Uniform() * static_cast<double>(steps_.trace().experts()));
      guesses_.push_back({.expert = right ? expert : other,
                          .probability = static_cast<float>(recall_)});
    }
    return guesses_;
  }

 private:
  // The standard's distributions differ between libraries; this does not.
  double Uniform() { return static_cast<double>(random_() >> 11) * 0x1.0p-53; }

  const TraceSteps& steps_;
  RunNeeds needs_;
  double recall_;
  int32_t horizon_;
  std::mt19937_64 random_;
  std::vector<ExpertGuess> guesses_;
};

}  // namespace

std::unique_ptr<Guesser> MakeGuesser(const TraceSteps& steps,
                                     const ReplayConfig& config) {
  switch (config.guesser) {
    case GuesserKind::kNone:
      return nullptr;
    case GuesserKind::kLearned:
      return std::make_unique<LearnedGuesser>(steps, config.predictor);
    case GuesserKind::kOracle:
      return std::make_unique<OracleGuesser>(steps, config);
  }
  return nullptr;
}

}  // namespace bullpen
