#include "engine/token_stream.h"

#include "gtest/gtest.h"

namespace bullpen {
namespace {

TEST(TokenStream, GivesAllThatCameSinceTheLastTake) {
  int ready = 0;
  TokenStream stream([&ready] { ++ready; });
  stream.PushPromptLogprobs({{.id = 1}});
  stream.Push({.id = 2});
  stream.Push({.id = 3});
  TokenStream::Batch first = stream.Take();
  ASSERT_EQ(first.prompt.size(), 1u);
  ASSERT_EQ(first.tokens.size(), 2u);
  EXPECT_EQ(first.tokens[1].id, 3);
  EXPECT_FALSE(first.finished.has_value());

  stream.Finish({.reason = FinishReason::kStop});
  TokenStream::Batch last = stream.Take();
  EXPECT_TRUE(last.prompt.empty());
  EXPECT_TRUE(last.tokens.empty());
  ASSERT_TRUE(last.finished.has_value());
  EXPECT_EQ(last.finished->reason, FinishReason::kStop);
  EXPECT_FALSE(stream.Take().finished.has_value());
  EXPECT_EQ(ready, 4);
}

TEST(TokenStream, TheFirstWishStays) {
  TokenStream cancelled(nullptr);
  EXPECT_EQ(cancelled.wish(), TokenStream::Wish::kMore);
  cancelled.Cancel();
  cancelled.Cancel();
  cancelled.Stop();
  EXPECT_EQ(cancelled.wish(), TokenStream::Wish::kCancel);
  TokenStream stopped(nullptr);
  stopped.Stop();
  stopped.Cancel();
  EXPECT_EQ(stopped.wish(), TokenStream::Wish::kStop);
}

TEST(TokenStreamDeathTest, FinishesOnce) {
  TokenStream stream(nullptr);
  stream.Finish({});
  EXPECT_DEATH(stream.Finish({}), "finished twice");
  EXPECT_DEATH(stream.Push({}), "after the end");
}

}  // namespace
}  // namespace bullpen
