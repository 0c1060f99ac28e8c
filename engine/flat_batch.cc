#include "engine/flat_batch.h"

#include <algorithm>

namespace bullpen {

void FlatBatch::Assign(const Batch& batch) {
  ids_.clear();
  sequences_.clear();
  logit_rows_.clear();
  logits_.clear();
  phase_ = Phase::kDecode;
  prompt_rows_ = 0;
  for (const Batch::Item& item : batch.items) Append(item);
}

void FlatBatch::Append(const Batch::Item& item) {
  const Sequence& sequence = *item.sequence;
  const int32_t first_row = static_cast<int32_t>(ids_.size());
  sequences_.push_back(
      {.tables = sequence.kv,
       .first_row = first_row,
       .rows = item.rows,
       .first_position = item.first_position,
       .prompt = static_cast<int32_t>(sequence.request.prompt.size()),
       .request = sequence.number});
  for (int32_t row = 0; row < item.rows; ++row) {
    ids_.push_back(sequence.token(item.first_position + row));
  }
  const int32_t prompt = static_cast<int32_t>(sequence.request.prompt.size());
  prompt_rows_ +=
      std::max(0, std::min(item.first_position + item.rows, prompt) -
                      std::max(item.first_position, sequence.reached));
  if (sequence.output.empty() || item.rows > 1) phase_ = Phase::kPrefill;
  AskForLogits(item, first_row);
}

void FlatBatch::AskForLogits(const Batch::Item& item, int32_t first_row) {
  const Sequence& sequence = *item.sequence;
  const int32_t end = item.first_position + item.rows;
  ItemLogits logits{.begin = static_cast<int32_t>(logit_rows_.size())};
  if (sequence.request.prompt_logprobs && sequence.output.empty()) {
    // Row p gives token p + 1's; a preempted prompt has gathered some before.
    const int32_t gathered =
        static_cast<int32_t>(sequence.prompt_events.size());
    const int32_t last =
        static_cast<int32_t>(sequence.request.prompt.size()) - 1;
    logits.prompt_position = std::max(item.first_position, gathered - 1);
    for (int32_t p = logits.prompt_position; p < std::min(end, last); ++p) {
      logit_rows_.push_back(first_row + p - item.first_position);
      ++logits.prompt_count;
    }
  }
  if (item.samples) logit_rows_.push_back(first_row + item.rows - 1);
  logits_.push_back(logits);
}

ForwardBatch FlatBatch::forward() const {
  return {.ids = ids_,
          .sequences = sequences_,
          .logit_rows = logit_rows_,
          .phase = phase_};
}

}  // namespace bullpen
