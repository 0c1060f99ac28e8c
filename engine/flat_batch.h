#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/model/model.h"
#include "engine/scheduler.h"

namespace bullpen {

// A Batch as Model::Forward wants it: flat rows, KV tables and the rows whose
// logits are needed. Keeps its memory from step to step.
class FlatBatch {
 public:
  // Which logits (by their place among those asked for) an item gets: one for
  // each prompt row whose next token wants its log probability, then, if the
  // item samples, the last row's.
  struct ItemLogits {
    int32_t begin = 0;
    int32_t prompt_count = 0;
    int32_t prompt_position = 0;  // of the first prompt row asked for
  };

  // The batch's sequences must keep their blocks until the next Assign.
  void Assign(const Batch& batch);

  ForwardBatch forward() const;
  const ItemLogits& logits_of(size_t item) const { return logits_[item]; }
  // Prompt tokens that are computed for the first time.
  int32_t prompt_rows() const { return prompt_rows_; }

 private:
  void Append(const Batch::Item& item);
  void AskForLogits(const Batch::Item& item, int32_t first_row);

  std::vector<int32_t> ids_;
  std::vector<SequenceRows> sequences_;
  std::vector<int32_t> logit_rows_;
  std::vector<ItemLogits> logits_;
  Phase phase_ = Phase::kDecode;
  int32_t prompt_rows_ = 0;
};

}  // namespace bullpen
