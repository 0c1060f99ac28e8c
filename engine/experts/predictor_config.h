#pragma once

#include <cstdint>
#include <vector>

#include "engine/experts/evidence.h"

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
  int32_t max_rows = 1;  // tokens of one step that are followed
  int32_t vocab = 0;     // token ids are below it; 0: no ids are told
};

struct PredictorConfig {
  EvidenceSet evidence = kAllEvidence;  // what may be used
  int32_t horizon = 4;                  // layers ahead, 1..16
  // Of all tables. Conditional ones come first: horizons that do not fit do
  // without. Those of token ids share what is left.
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

}  // namespace bullpen
