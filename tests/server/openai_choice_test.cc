#include "server/openai_choice.h"

#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class ChoiceTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    tokenizer_ = *Tokenizer::FromDirectory("models/default");
    special_ = *tokenizer_->IdOf(kSpecial);
  }
  static void TearDownTestSuite() { tokenizer_.reset(); }

  static int32_t Id(std::string_view bytes) {
    int32_t id = 0;
    while (tokenizer_->TokenBytes(id) != bytes) ++id;
    return id;
  }

  Choice Start(ChoiceArgs args) {
    stream_ = std::make_shared<TokenStream>([] {});
    return Choice(*tokenizer_, std::move(args), stream_);
  }
  void Push(int32_t id) { stream_->Push({.id = id, .logprob = -1.0f}); }
  void Say(std::string_view text) {
    for (const char c : text) Push(Id(std::string_view(&c, 1)));
  }

  // What came since the last time, put together.
  ChoiceDelta Take(Choice& choice) {
    deltas_.clear();
    choice.Take(deltas_);
    ChoiceDelta all;
    for (ChoiceDelta& delta : deltas_) {
      all.text += delta.text;
      for (PlacedToken& token : delta.tokens) all.tokens.push_back(token);
    }
    return all;
  }
  static std::vector<int64_t> Offsets(const ChoiceDelta& delta) {
    std::vector<int64_t> offsets;
    for (const PlacedToken& token : delta.tokens) {
      offsets.push_back(token.text_offset);
    }
    return offsets;
  }

  static constexpr char kSpecial[] = "<|im_end|>";
  static std::unique_ptr<const Tokenizer> tokenizer_;
  static int32_t special_;
  std::shared_ptr<TokenStream> stream_;
  std::vector<ChoiceDelta> deltas_;
};

std::unique_ptr<const Tokenizer> ChoiceTest::tokenizer_;
int32_t ChoiceTest::special_ = 0;

TEST_F(ChoiceTest, OffsetsCountCharactersOfTheTextAlone) {
  Choice choice = Start({.logprobs = true});
  Say("\u00e9");  // two tokens
  Push(special_);
  Say("b");
  Push(special_);
  stream_->Finish({.reason = FinishReason::kLength, .completion_tokens = 6});
  const ChoiceDelta all = Take(choice);
  EXPECT_EQ(all.text, "\u00e9b");
  EXPECT_THAT(Offsets(all), ElementsAre(0, 1, 1, 1, 2));
  // With a stop id, which is not given out.
  EXPECT_EQ(choice.completion_tokens(), 6);
  EXPECT_EQ(choice.finish_reason(), "length");
}

TEST_F(ChoiceTest, WhatComesAfterAStopStringIsNoPartOfIt) {
  Choice choice = Start({.stop = {"cd"}, .logprobs = true});
  Say("abcdef");
  stream_->Finish({.reason = FinishReason::kLength, .completion_tokens = 6});
  const ChoiceDelta all = Take(choice);
  EXPECT_EQ(all.text, "ab");
  EXPECT_THAT(Offsets(all), ElementsAre(0, 1));
  EXPECT_EQ(choice.completion_tokens(), 4);
  EXPECT_EQ(choice.finish_reason(), "stop");
}

TEST_F(ChoiceTest, AStopStringAtTheStartLeavesNothing) {
  Choice choice = Start({.stop = {"a"}, .logprobs = true});
  Say("a");
  Take(choice);
  EXPECT_TRUE(choice.ended());
  EXPECT_THAT(deltas_, IsEmpty());
}

TEST_F(ChoiceTest, AnEchoComesBeforeTheFirstToken) {
  Choice choice = Start({.stop = {"abx", "bd"},
                         .logprobs = true,
                         .echo = true,
                         .prompt_text = "x<|im_end|>y"});
  EXPECT_EQ(Take(choice).text, "");
  // The tokenizer put the first one there.
  stream_->PushPromptLogprobs(
      {{.id = special_}, {.id = Id("x")}, {.id = special_}, {.id = Id("y")}});
  const ChoiceDelta echo = Take(choice);
  EXPECT_EQ(echo.text, "x<|im_end|>y");
  EXPECT_THAT(Offsets(echo), ElementsAre(0, 0, 1, 11));
  Say("abd");
  EXPECT_THAT(Offsets(Take(choice)), ElementsAre(12));
}

// As those of SentencePiece, whose first token has a space of its own.
TEST_F(ChoiceTest, OffsetsGoOnBehindTheEchoWhateverItsTokensSay) {
  Choice choice = Start({.logprobs = true, .echo = true, .prompt_text = "x"});
  stream_->PushPromptLogprobs({{.id = Id(" ")}, {.id = Id("x")}});
  Say("a");
  EXPECT_THAT(Offsets(Take(choice)), ElementsAre(0, 1, 1));
}

TEST_F(ChoiceTest, AFailureGivesNoEcho) {
  Choice choice = Start({.echo = true, .prompt_text = "x"});
  stream_->Finish({.status = absl::DataLossError("gone")});
  Take(choice);
  EXPECT_THAT(deltas_, IsEmpty());
  EXPECT_TRUE(absl::IsDataLoss(choice.status()));
}

}  // namespace
}  // namespace bullpen
