#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/packed_model.h"
#include "kernels/types.h"

namespace bullpen {

// What a model's weights and keys make a step read and compute, by the sizes in
// its packed files.
class ModelCost {
 public:
  // `kv_type`: "f32", "f16" or "int8", as ModelOptions has it.
  static absl::StatusOr<ModelCost> Of(const PackedModel& packed,
                                      const std::string& kv_type);

  // Bytes of resident weights that every step reads: all but the embedding,
  // of which a token reads one row (a tied one is the head, and counts).
  int64_t resident_bytes() const { return resident_bytes_; }
  int64_t expert_bytes(int layer) const { return expert_bytes_[layer]; }
  // Keys and values that a row at `position` reads, its own among them.
  int64_t KvBytes(int64_t position) const;

  // Multiply-adds of `rows` rows from position 0 on: all layers, and the head
  // for the last one.
  double PromptMultiplyAdds(int64_t rows) const;

 private:
  explicit ModelCost(const ModelConfig& config) : config_(config) {}
  int64_t KeysSeen(int layer, int64_t position) const;

  ModelConfig config_;
  int64_t resident_bytes_ = 0;
  std::vector<int64_t> expert_bytes_;
  int64_t kv_token_bytes_ = 0;  // of one layer
  double row_multiply_adds_ = 0;
  double head_multiply_adds_ = 0;
};

}  // namespace bullpen
