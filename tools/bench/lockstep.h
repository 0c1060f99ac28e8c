#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/model.h"
#include "tools/bench/model_cost.h"

namespace bullpen {

// Sequences that advance in step by plain calls of Forward, on the calling
// thread: no scheduler, no sampler, no streams. Tokens are random, so that
// routing is spread; keys that were never computed are zeros, which cost what
// others cost.
class Lockstep {
 public:
  // The model has KV blocks for `sequences` times its context.
  Lockstep(Model& model, const ModelCost& cost, int32_t sequences);
  ~Lockstep();
  Lockstep(const Lockstep&) = delete;

  // What a step read: weights once, each chosen expert once, every sequence's
  // keys and values.
  struct Step {
    int64_t bytes = 0;
    int64_t chosen = 0;  // different experts, over all layers
  };

  // One token for each sequence, all at `position`.
  absl::StatusOr<Step> Decode(int32_t position);
  // Rows of one prompt from position 0, in chunks as the model takes them,
  // logits for the last row.
  absl::Status Prefill(int32_t rows);

  // Runs prompts until one finds all its experts in memory, but a few at most.
  absl::Status Warm();

 private:
  void Count(int layer, std::span<const int32_t> experts);
  absl::StatusOr<ForwardResult> Forward(const ForwardBatch& batch);

  Model& model_;
  const ModelCost& cost_;
  std::mt19937 random_{1};
  std::vector<std::vector<KvTable>> tables_;  // of each sequence
  std::vector<SequenceRows> sequences_;
  std::vector<int32_t> ids_;
  std::vector<int32_t> rows_;
  std::vector<bool> seen_;  // experts of the layer at hand
  Step step_;
};

// Whether the memory holds every expert.
bool HoldsAllExperts(const Model& model);

}  // namespace bullpen
