#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/experts/conditional_table.h"
#include "engine/experts/evidence.h"
#include "engine/experts/popularity.h"

namespace bullpen {

// What a model routes: for each layer how many experts there are and how many
// a token uses. A dense layer has one and uses it.
struct RoutingShape {
  struct Layer {
    int32_t experts = 1;
    int32_t top_k = 1;
    friend bool operator==(const Layer&, const Layer&) = default;
  };
  std::vector<Layer> layers;
  int32_t max_rows = 1;  // tokens of one step
};

struct PredictorConfig {
  EvidenceSet evidence = kAllEvidence;  // what may be used
  int32_t horizon = 4;                  // layers ahead, 1..16
  // Of the conditional tables; horizons that do not fit do without.
  int64_t table_bytes = int64_t{64} << 20;
  int32_t row_uses = 4096;  // see ConditionalTable
  double popularity_half_life = 64;
  double recent_half_life = 8;
  float min_probability = 0.25f;  // of a guess
};

struct ExpertGuess {
  int32_t expert = 0;
  float probability = 0;  // that the layer's next step uses it
};

// Guesses which experts the coming layers will use, from what past tokens and
// this one used, and learns from how it turns out. Allocates at construction
// only. A few microseconds per row, layer and horizon. Pure: no clock, no
// threads; the live engine and the trace simulator run it. One thread.
class RoutingPredictor {
 public:
  RoutingPredictor(const RoutingShape& shape, const PredictorConfig& config);

  // `layer` has routed a step of `rows` tokens; `chosen` is [rows, top_k].
  // Layers come in ascending order; a step begins when one does not.
  void Observe(int32_t layer, std::span<const int32_t> chosen, int32_t rows);

  struct Query {
    int32_t layer = 0;
    // Layers since the last one that was observed, 1..horizon. Where that one
    // is of this step, the guess is for its tokens, else for the step to come.
    int32_t horizon = 1;
    // [rows, experts]: what the layer's router gives for the hidden states at
    // hand, less the top_k-th best of its row. Empty: not computed.
    std::span<const float> router_margins = {};
  };
  // By descending probability, from min_probability up. Until the next call.
  std::span<const ExpertGuess> Guess(const Query& query);

  // What requests like the one that starts used: [layers, most experts of a
  // layer], shares of their tokens. Empty: nothing is known.
  void SetRequestShares(std::span<const float> shares);

  // Over all layers, horizon from 1.
  const GuessCounts& counts(Evidence evidence, int32_t horizon) const;
  const GuessCounts& combined_counts(int32_t horizon) const;

  int32_t horizon() const { return config_.horizon; }
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
    std::vector<float> combined;
  };
  struct Layer {
    RoutingShape::Layer shape;
    Popularity popularity;
    Popularity recent;
    std::vector<ConditionalTable> tables = {};  // by horizon, from 1
    std::vector<RowGuess> pending = {};         // by horizon, from 1
    std::vector<float> request_odds = {};
    int64_t step = -1;                 // that it ran last
    std::vector<int32_t> chosen = {};  // in that step, [rows_, top_k]
  };
  struct Counts {
    std::array<GuessCounts, kEvidenceKinds> evidence;
    GuessCounts combined;
  };

  bool Dense(const Layer& layer) const { return layer.shape.experts < 2; }
  bool HasPath(const Query& query) const;
  // Fills in what is known of one row, and weighs it.
  void Gather(const Query& query, int32_t row, RowGuess& guess);
  void Settle(Layer& layer, int32_t horizon);
  void LearnPaths(int32_t layer);
  void Rank(const Layer& layer, int32_t rows);

  PredictorConfig config_;
  int32_t table_horizon_ = 0;
  bool request_known_ = false;
  std::vector<Layer> layers_;
  std::vector<EvidenceWeights> weights_;  // by horizon, from 1
  std::vector<Counts> counts_;            // by horizon, from 1
  int64_t step_ = 0;
  int32_t last_layer_ = -1;
  int32_t rows_ = 1;  // of the step
  // Scratch, of the size of the largest layer.
  RowGuess row_guess_;
  std::vector<float> estimate_;
  std::vector<float> used_;    // 1 where the first row used the expert
  std::vector<float> unused_;  // the probability that no row uses it
  std::vector<ExpertGuess> guesses_;
};

}  // namespace bullpen
