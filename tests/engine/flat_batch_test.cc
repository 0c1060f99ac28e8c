#include "engine/flat_batch.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

using ::testing::ElementsAre;

Sequence MakeSequence(std::vector<int32_t> prompt,
                      std::vector<int32_t> output) {
  Sequence sequence;
  sequence.request.prompt = std::move(prompt);
  sequence.output = std::move(output);
  return sequence;
}

Phase PhaseOf(FlatBatch& flat, Sequence& sequence, int32_t first_position,
              int32_t rows) {
  flat.Assign({.items = {{.sequence = &sequence,
                          .first_position = first_position,
                          .rows = rows}}});
  return flat.forward().phase;
}

TEST(FlatBatch, IsPrefillWhileItHasARowOfAPrompt) {
  Sequence fresh = MakeSequence({5}, {});
  Sequence decoding = MakeSequence({5, 6}, {7});
  FlatBatch flat;
  EXPECT_EQ(PhaseOf(flat, fresh, 0, 1), Phase::kPrefill);
  EXPECT_EQ(PhaseOf(flat, decoding, 2, 1), Phase::kDecode);
  // It was preempted, and is computed again.
  EXPECT_EQ(PhaseOf(flat, decoding, 0, 3), Phase::kPrefill);
}

TEST(FlatBatch, SaysWhoseItsRowsAre) {
  Sequence first = MakeSequence({1, 2, 3}, {4});
  Sequence second = MakeSequence({10, 11, 12, 13, 14}, {});
  first.number = 7;
  second.number = 9;
  FlatBatch flat;
  flat.Assign(
      {.items = {{.sequence = &first,
                  .first_position = 3,
                  .rows = 1,
                  .samples = true},
                 {.sequence = &second, .first_position = 2, .rows = 2}}});
  const ForwardBatch forward = flat.forward();
  EXPECT_THAT(forward.ids, ElementsAre(4, 12, 13));
  ASSERT_EQ(forward.sequences.size(), 2u);
  EXPECT_EQ(forward.sequences[0].request, 7);
  EXPECT_EQ(forward.sequences[0].prompt, 3);
  EXPECT_EQ(forward.sequences[1].request, 9);
  EXPECT_EQ(forward.sequences[1].prompt, 5);
  EXPECT_EQ(forward.sequences[1].first_row, 1);
  EXPECT_THAT(forward.logit_rows, ElementsAre(0));
  EXPECT_EQ(flat.prompt_rows(), 2);
}

TEST(FlatBatch, AsksOnceForTheLogitsOfAPrompt) {
  Sequence sequence = MakeSequence({1, 2, 3, 4}, {});
  sequence.request.prompt_logprobs = true;
  Batch batch = {.items = {{.sequence = &sequence, .rows = 3}}};
  FlatBatch flat;
  flat.Assign(batch);
  EXPECT_THAT(flat.forward().logit_rows, ElementsAre(0, 1, 2));
  // Preempted when the first two tokens had theirs.
  sequence.prompt_events.resize(2);
  flat.Assign(batch);
  EXPECT_THAT(flat.forward().logit_rows, ElementsAre(1, 2));
  EXPECT_EQ(flat.logits_of(0).prompt_position, 1);
  // Preempted after the client got them all.
  sequence.prompt_events.clear();
  sequence.output = {5};
  flat.Assign(batch);
  EXPECT_THAT(flat.forward().logit_rows, ElementsAre());
}

}  // namespace
}  // namespace bullpen
