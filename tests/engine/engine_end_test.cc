// Every way in which a request ends before its time.
#include "absl/strings/str_cat.h"
#include "engine/engine.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/engine_fixture.h"

namespace bullpen {
namespace {

using ::testing::HasSubstr;

constexpr Clock::time_point kLongAgo =
    Clock::time_point(std::chrono::nanoseconds(1));

TEST(EngineEnd, CancelInDecode) {
  EngineFixture f;
  f.control.Hold();
  Reader reader;
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), 50), reader).ok());
  f.control.AwaitHeld();
  f.control.StepOnce();
  reader.AwaitTokens(1);
  reader.stream()->Cancel();
  f.control.Release();
  const Finished& finished = reader.Wait();
  EXPECT_EQ(finished.reason, FinishReason::kError);
  EXPECT_TRUE(absl::IsCancelled(finished.status));
  EXPECT_EQ(finished.completion_tokens, 1);  // that in work came to nothing
  EXPECT_TRUE(f.AtBaseLine());
  EXPECT_EQ(f.metrics.finished_cancelled.Value(), 1);
}

TEST(EngineEnd, AStepGoesOnWhileAnyOfItsRequestsIsWanted) {
  EngineFixture f;
  Reader alone, kept, left;
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), 6), alone).ok());
  EXPECT_TRUE(alone.Wait().status.ok());
  f.control.Hold();
  std::vector<Submission> both;
  both.push_back({Greedy(MakePrompt(3), 6), kept.stream()});
  both.push_back({Greedy(MakePrompt(4), 6), left.stream()});
  ASSERT_TRUE(f.engine.Submit(std::move(both)).ok());
  f.control.AwaitHeld();
  left.stream()->Cancel();
  f.control.Release();
  EXPECT_TRUE(absl::IsCancelled(left.Wait().status));
  EXPECT_EQ(left.Wait().completion_tokens, 1);  // of the step that went on
  EXPECT_TRUE(kept.Wait().status.ok());
  EXPECT_EQ(kept.ids(), alone.ids());
  EXPECT_TRUE(f.AtBaseLine());
}

TEST(EngineEnd, EachOfAStepThatNobodyWantsEndsAsItsClientWished) {
  EngineFixture f;
  f.control.Hold();
  Reader cancelled, stopped;
  std::vector<Submission> both;
  both.push_back({Greedy(MakePrompt(3), 6), cancelled.stream()});
  both.push_back({Greedy(MakePrompt(4), 6), stopped.stream()});
  ASSERT_TRUE(f.engine.Submit(std::move(both)).ok());
  f.control.AwaitHeld();
  cancelled.stream()->Cancel();
  stopped.stream()->Stop();
  f.control.Release();
  EXPECT_TRUE(absl::IsCancelled(cancelled.Wait().status));
  EXPECT_EQ(stopped.Wait().reason, FinishReason::kStop);
  EXPECT_TRUE(stopped.Wait().status.ok());
  EXPECT_EQ(stopped.Wait().completion_tokens, 0);
  EXPECT_TRUE(f.AtBaseLine());
}

TEST(EngineEnd, StopIsAnOrdinaryEnd) {
  EngineFixture f;
  f.control.Hold();
  Reader reader;
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), 50), reader).ok());
  f.control.AwaitHeld();
  f.control.StepOnce();
  reader.AwaitTokens(1);
  reader.stream()->Stop();
  f.control.Release();
  const Finished& finished = reader.Wait();
  EXPECT_EQ(finished.reason, FinishReason::kStop);
  EXPECT_TRUE(finished.status.ok());
  EXPECT_TRUE(f.AtBaseLine());
  EXPECT_EQ(f.metrics.finished_stop.Value(), 1);
  EXPECT_EQ(f.metrics.finished_cancelled.Value(), 0);
}

TEST(EngineEnd, CancelInPrefill) {
  EngineFixture f({}, {.max_batch_tokens = 4});
  f.control.Hold();
  Reader reader;
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(40), 50), reader).ok());
  f.control.AwaitHeld();
  f.control.StepOnce();
  reader.stream()->Cancel();
  f.control.Release();
  EXPECT_TRUE(absl::IsCancelled(reader.Wait().status));
  EXPECT_TRUE(reader.ids().empty());
  EXPECT_TRUE(f.AtBaseLine());
}

TEST(EngineEnd, CancelInTheQueue) {
  EngineFixture f({}, {.max_sequences = 1});
  f.control.Hold();
  Reader running, waiting;
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), 3), running).ok());
  f.control.AwaitHeld();
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), 3), waiting).ok());
  waiting.stream()->Cancel();
  f.control.StepOnce();  // the running one goes on
  EXPECT_TRUE(absl::IsCancelled(waiting.Wait().status));
  EXPECT_EQ(waiting.Wait().completion_tokens, 0);
  EXPECT_GT(waiting.Wait().queue_seconds, 0);
  f.control.Release();
  EXPECT_TRUE(running.Wait().status.ok());
  EXPECT_TRUE(f.AtBaseLine());
}

TEST(EngineEnd, DeadlineInTheQueue) {
  EngineFixture f({}, {.max_sequences = 1});
  f.control.Hold();
  Reader running, waiting;
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), 3), running).ok());
  f.control.AwaitHeld();
  Request request = Greedy(MakePrompt(3), 3);
  request.deadline = kLongAgo;
  ASSERT_TRUE(f.Submit(std::move(request), waiting).ok());
  f.control.StepOnce();
  EXPECT_TRUE(absl::IsDeadlineExceeded(waiting.Wait().status));
  f.control.Release();
  EXPECT_TRUE(running.Wait().status.ok());
  EXPECT_EQ(f.metrics.finished_deadline.Value(), 1);
  EXPECT_TRUE(f.AtBaseLine());
}

TEST(EngineEnd, DeadlineWhileRunning) {
  // More tokens than fit into the time, however fast the machine is: the fake
  // reads all of a sequence's past for each token.
  EngineFixture f({.context = 1 << 20, .kv_groups = {{.blocks = 1 << 16}}});
  Reader reader;
  Request request = Greedy(MakePrompt(3), (1 << 20) - 3);
  request.deadline = Clock::now() + std::chrono::milliseconds(50);
  ASSERT_TRUE(f.Submit(std::move(request), reader).ok());
  const Finished& finished = reader.Wait();
  EXPECT_TRUE(absl::IsDeadlineExceeded(finished.status));
  EXPECT_THAT(std::string(finished.status.message()),
              HasSubstr("its deadline of 0.0"));  // seconds: it was 50 ms
  EXPECT_GE(finished.total_seconds, 0.04);
  EXPECT_EQ(reader.ids().size(),
            static_cast<size_t>(finished.completion_tokens));
  EXPECT_TRUE(f.AtBaseLine());
}

TEST(EngineEnd, DataLossEndsThatSequenceAlone) {
  EngineFixture f({.poison_token = 61});
  f.control.Hold();
  Reader good, bad;
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), 6), good).ok());
  ASSERT_TRUE(f.Submit(Greedy({1, 2, 61, 4}, 6), bad).ok());
  f.control.Release();
  EXPECT_TRUE(absl::IsDataLoss(bad.Wait().status));
  EXPECT_EQ(bad.Wait().reason, FinishReason::kError);
  EXPECT_TRUE(bad.ids().empty());
  EXPECT_TRUE(good.Wait().status.ok());
  EXPECT_EQ(good.ids().size(), 6u);
  EXPECT_EQ(f.metrics.finished_error.Value(), 1);
  EXPECT_TRUE(f.AtBaseLine());
}

TEST(EngineEnd, LogitsThatAreNoNumbersEndThatSequenceAlone) {
  EngineFixture f({.nan_token = 61});
  f.control.Hold();
  Reader good, greedy, drawn, scored;
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), 6), good).ok());
  ASSERT_TRUE(f.Submit(Greedy({1, 2, 61}, 6), greedy).ok());
  Request draw = Greedy({1, 2, 3, 61}, 6);
  draw.sampling = {.temperature = 1, .top_p = 0.9};
  draw.logprobs = 1;
  ASSERT_TRUE(f.Submit(std::move(draw), drawn).ok());
  Request score = Greedy({1, 61, 3, 4}, 0);
  score.prompt_logprobs = true;
  ASSERT_TRUE(f.Submit(std::move(score), scored).ok());
  f.control.Release();
  const auto failed_at = [](Reader& reader, const char* position) {
    const Finished& finished = reader.Wait();
    EXPECT_EQ(finished.reason, FinishReason::kError);
    EXPECT_TRUE(absl::IsInternal(finished.status)) << finished.status;
    EXPECT_THAT(std::string(finished.status.message()),
                HasSubstr(absl::StrCat("nan for the token at position ",
                                       position, ":")));
    EXPECT_TRUE(reader.ids().empty());
    EXPECT_TRUE(reader.prompt().empty());
  };
  failed_at(greedy, "3");
  failed_at(drawn, "4");
  failed_at(scored, "2");
  EXPECT_TRUE(good.Wait().status.ok());
  EXPECT_EQ(good.ids().size(), 6u);
  EXPECT_TRUE(f.AtBaseLine());
}

TEST(EngineEnd, AFailedForwardEndsItsBatchAndTheEngineServesOn) {
  EngineFixture f({}, {.max_sequences = 2});
  f.control.Hold();
  Reader a, b, c;
  std::vector<Submission> both;
  both.push_back({Greedy(MakePrompt(3), 6), a.stream()});
  both.push_back({Greedy(MakePrompt(4), 6), b.stream()});
  both.push_back({Greedy(MakePrompt(5), 6), c.stream()});
  ASSERT_TRUE(f.engine.Submit(std::move(both)).ok());
  f.control.AwaitHeld();
  f.control.FailNextForward(absl::InternalError("a kernel failed"));
  f.control.Release();
  EXPECT_TRUE(absl::IsInternal(a.Wait().status));
  EXPECT_TRUE(absl::IsInternal(b.Wait().status));
  EXPECT_TRUE(c.Wait().status.ok());
  EXPECT_EQ(c.ids().size(), 6u);
  EXPECT_TRUE(f.AtBaseLine());
}

TEST(EngineEnd, DrainFinishesWhatWasAcceptedAndRefusesTheRest) {
  EngineFixture f({}, {.max_sequences = 1});
  f.control.Hold();
  Reader a, b, late;
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), 6), a).ok());
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), 6), b).ok());
  f.engine.Drain();
  EXPECT_TRUE(absl::IsUnavailable(f.Submit(Greedy(MakePrompt(3), 6), late)));
  EXPECT_EQ(f.metrics.requests_rejected_unavailable.Value(), 1);
  f.control.Release();
  EXPECT_TRUE(f.engine.WaitDrained(Clock::now() + std::chrono::seconds(60)));
  EXPECT_TRUE(a.Wait().status.ok());
  EXPECT_TRUE(b.Wait().status.ok());
}

TEST(EngineEnd, DrainEndsWhatIsLeftWhenTimeIsUp) {
  EngineFixture f({.context = 1 << 20, .kv_groups = {{.blocks = 1 << 16}}},
                  {.max_sequences = 1});
  Reader running, waiting;
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), (1 << 20) - 3), running).ok());
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), 6), waiting).ok());
  running.AwaitTokens(3);
  EXPECT_FALSE(f.engine.WaitDrained(Clock::now()));
  EXPECT_TRUE(absl::IsUnavailable(running.Wait().status));
  EXPECT_TRUE(absl::IsUnavailable(waiting.Wait().status));
  EXPECT_TRUE(f.AtBaseLine());
  EXPECT_TRUE(f.engine.WaitDrained(Clock::now()));
  Reader late;
  EXPECT_TRUE(absl::IsUnavailable(f.Submit(Greedy(MakePrompt(3), 6), late)));
}

TEST(EngineEnd, StopEndsEverythingWithUnavailable) {
  EngineFixture f({.context = 1 << 20, .kv_groups = {{.blocks = 1 << 16}}},
                  {.max_sequences = 1});
  Reader running, waiting, late;
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), (1 << 20) - 3), running).ok());
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), 6), waiting).ok());
  f.engine.Stop();
  f.engine.Stop();
  EXPECT_TRUE(absl::IsUnavailable(running.Wait().status));
  EXPECT_TRUE(absl::IsUnavailable(waiting.Wait().status));
  EXPECT_TRUE(absl::IsUnavailable(f.Submit(Greedy({1}, 1), late)));
  EXPECT_TRUE(f.AtBaseLine());
}

TEST(EngineEnd, TheStreamOutlivesTheEngine) {
  Reader reader;
  {
    EngineFixture f({.context = 1 << 20, .kv_groups = {{.blocks = 1 << 16}}});
    ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), (1 << 20) - 3), reader).ok());
  }
  EXPECT_TRUE(absl::IsUnavailable(reader.Wait().status));
}

}  // namespace
}  // namespace bullpen
