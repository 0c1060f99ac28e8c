#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/experts/conditional_table.h"
#include "engine/experts/cost_meter.h"
#include "engine/experts/evidence.h"
#include "engine/experts/popularity.h"
#include "engine/experts/predictor_config.h"
#include "engine/experts/token_experts.h"

namespace bullpen {

// Guesses which experts the coming layers will use, from what past tokens and
// this one used, and learns from how it turns out. Allocates at construction
// only. A few microseconds per row, layer and horizon. Pure: no threads, no
// clock but one that costs() is given; the live engine and the trace simulator
// run it. One thread.
class RoutingPredictor {
 public:
  // The first layers, where the id of a token tells most.
  static constexpr int32_t kTokenLayers = 3;

  RoutingPredictor(const RoutingShape& shape, const PredictorConfig& config);

  // What is known of a step's tokens before it runs.
  struct StepTokens {
    std::span<const int32_t> ids = {};
    // For each token [layers, most experts of a layer] of log-odds, what
    // requests like its own used; null: nothing is known. Empty: of none.
    std::span<const float* const> request_odds = {};
  };
  // A step begins; the caller keeps what is known until the next. A step of
  // which nobody told begins with its first layer.
  void BeginStep(const StepTokens& tokens);
  // `layer` has routed a step of `rows` tokens; `chosen` is [rows, top_k]. Of
  // more than the shape's max_rows the last are followed: of a prompt's part
  // they tell most about what comes. Layers come in ascending order; a step
  // begins when one does not.
  void Observe(int32_t layer, std::span<const int32_t> chosen, int32_t rows);

  struct Query {
    int32_t layer = 0;
    // Layers since the last one that was observed, 1..reach(), or layer + 1
    // where the step has just begun. The guess is for the step's tokens, or, if
    // no layer of the step to come was observed nor told of, for one like it.
    int32_t horizon = 1;
    // [rows, experts]: what the layer's router gives for the hidden states at
    // hand, less the top_k-th best of its row. Empty: not computed.
    std::span<const float> router_margins = {};
  };
  // By descending probability, from min_probability up. Until the next call.
  std::span<const ExpertGuess> Guess(const Query& query);

  // Over all layers, horizon from 1.
  const GuessCounts& counts(Evidence evidence, int32_t horizon) const;
  const GuessCounts& combined_counts(int32_t horizon) const;
  CostMeter& costs() { return costs_; }

  int32_t horizon() const { return config_.horizon; }
  // The horizon, or as far as ids tell when a step begins.
  int32_t reach() const { return static_cast<int32_t>(weights_.size()); }
  // How far ahead conditional tables reach.
  int32_t table_horizon() const { return table_horizon_; }
  int64_t bytes() const;

  // What a profile keeps. A table is from layer - horizon to layer, both >= 0.
  std::vector<RoutingShape::Layer> layers() const;
  std::span<const float> popularity(int32_t layer) const {
    return layers_[layer].popularity.shares();
  }
  void RestorePopularity(int32_t layer, std::span<const float> shares);
  const ConditionalTable& table(int32_t layer, int32_t horizon) const {
    return layers_[layer].tables[horizon - 1];
  }
  ConditionalTable& table(int32_t layer, int32_t horizon) {
    return layers_[layer].tables[horizon - 1];
  }

 private:
  // What is known of one row, for one layer and horizon. That of a step's
  // first row is kept until the layer has run, to learn from.
  struct RowGuess {
    EvidenceRow row;  // `present` is 0 when there is none
    std::vector<float> path_odds;
    std::vector<float> router_odds;
    std::vector<float> token_odds;
    std::vector<float> combined;
  };
  struct Layer {
    RoutingShape::Layer shape;
    Popularity popularity;
    Popularity recent;
    std::vector<ConditionalTable> tables = {};  // by horizon, from 1
    std::vector<TokenExperts> tokens = {};      // one, or none
    std::vector<RowGuess> pending = {};         // by horizon, from 1
    int64_t step = -1;                          // that it ran last
    std::vector<int32_t> chosen = {};           // in that step, [rows_, top_k]
  };
  struct Counts {
    std::array<GuessCounts, kEvidenceKinds> evidence;
    GuessCounts combined;
  };

  bool Dense(const Layer& layer) const { return layer.shape.experts < 2; }
  void AddLayer(const RoutingShape& shape, int32_t index);
  void AddTokenTables(int32_t vocab, int64_t bytes);
  bool Follows(const Layer& layer) const;
  bool HasPath(const Query& query) const;
  bool HasIds(const Layer& layer) const;
  bool HasRequests() const;
  // Fills in what is known of one row, and weighs it.
  void Gather(const Query& query, int32_t row, RowGuess& guess);
  void Settle(Layer& layer, int32_t horizon);
  void LearnTokens(Layer& layer, std::span<const int32_t> chosen, int32_t rows);
  void LearnPaths(int32_t layer);

  PredictorConfig config_;
  int32_t max_rows_;
  int32_t table_horizon_ = 0;
  std::vector<Layer> layers_;
  std::vector<EvidenceWeights> weights_;  // by horizon, from 1
  std::vector<Counts> counts_;            // by horizon, from 1
  CostMeter costs_;
  int64_t step_ = 0;
  int32_t last_layer_ = -1;
  int32_t rows_ = 1;   // of the step, that are followed
  StepTokens tokens_;  // of all its rows; empty: nobody told
  // Scratch, of the size of the largest layer.
  RowGuess row_guess_;
  std::vector<float> estimate_;
  std::vector<float> used_;    // 1 where the first row used the expert
  std::vector<float> unused_;  // the probability that no row uses it
  std::vector<ExpertGuess> guesses_;
};

}  // namespace bullpen
