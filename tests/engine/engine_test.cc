#include "engine/engine.h"

#include <cmath>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/engine_fixture.h"

namespace bullpen {
namespace {

using ::testing::HasSubstr;

TEST(Engine, StreamsMaxTokensAndFinishesOnce) {
  EngineFixture f;
  Reader reader;
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(5), 10), reader).ok());
  const Finished& finished = reader.Wait();
  EXPECT_EQ(finished.reason, FinishReason::kLength);
  EXPECT_TRUE(finished.status.ok()) << finished.status;
  EXPECT_EQ(finished.prompt_tokens, 5);
  EXPECT_EQ(finished.completion_tokens, 10);
  EXPECT_GT(finished.first_token_seconds, 0);
  EXPECT_GE(finished.first_token_seconds, finished.queue_seconds);
  EXPECT_GE(finished.total_seconds, finished.first_token_seconds);
  EXPECT_EQ(reader.ids().size(), 10u);
  EXPECT_FALSE(reader.tokens()[0].logprob.has_value());
  EXPECT_TRUE(reader.prompt().empty());
  EXPECT_TRUE(f.AtBaseLine());
}

TEST(Engine, AStopIdEndsWithoutBeingGivenOutButIsCounted) {
  EngineFixture f({.eos = 63, .eos_after = 8});
  Reader reader;
  Request request = Greedy(MakePrompt(5), 20);
  request.stop_ids = {62, 63};
  ASSERT_TRUE(f.Submit(std::move(request), reader).ok());
  const Finished& finished = reader.Wait();
  EXPECT_EQ(finished.reason, FinishReason::kStop);
  EXPECT_EQ(finished.stop_id, 63);
  EXPECT_EQ(finished.completion_tokens, 4);
  EXPECT_EQ(reader.ids().size(), 3u);
}

TEST(Engine, MaxTokensZeroComputesThePromptOnly) {
  EngineFixture f({}, {.max_batch_tokens = 4});
  Reader reader;
  Request request = Greedy(MakePrompt(10), 0);
  request.prompt_logprobs = true;
  request.logprobs = 2;
  ASSERT_TRUE(f.Submit(std::move(request), reader).ok());
  const Finished& finished = reader.Wait();
  EXPECT_EQ(finished.reason, FinishReason::kLength);
  EXPECT_EQ(finished.completion_tokens, 0);
  EXPECT_EQ(finished.first_token_seconds, 0);
  EXPECT_TRUE(reader.ids().empty());
  EXPECT_EQ(reader.prompt().size(), 10u);
  EXPECT_EQ(f.control.forwards(), 3);
}

TEST(Engine, MaxTokensZeroOfOneTokenAndNothingElseFinishes) {
  EngineFixture f;
  Reader reader;
  ASSERT_TRUE(f.Submit(Greedy({1}, 0), reader).ok());
  EXPECT_EQ(reader.Wait().reason, FinishReason::kLength);
}

TEST(Engine, PromptLogprobsHaveOneEventPerTokenAndNoneForTheFirst) {
  EngineFixture f;
  Reader reader;
  Request request = Greedy(MakePrompt(9), 2);
  request.prompt_logprobs = true;
  request.logprobs = 3;
  ASSERT_TRUE(f.Submit(std::move(request), reader).ok());
  reader.Wait();
  const std::vector<TokenEvent> prompt = reader.prompt();
  ASSERT_EQ(prompt.size(), 9u);
  const std::vector<int32_t> expected = MakePrompt(9);
  for (size_t i = 0; i < prompt.size(); ++i) {
    EXPECT_EQ(prompt[i].id, expected[i]);
    EXPECT_EQ(prompt[i].logprob.has_value(), i > 0);
    EXPECT_EQ(prompt[i].top.size(), i > 0 ? 3u : 0u);
  }
  EXPECT_EQ(reader.tokens()[0].top.size(), 3u);
  EXPECT_EQ(reader.tokens()[0].top[0].logprob, *reader.tokens()[0].logprob);
}

TEST(Engine, RefusesMoreThanMaxQueueAllOrNone) {
  EngineFixture f({}, {.max_queue = 3, .max_sequences = 1});
  f.control.Hold();
  Reader running;
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), 2), running).ok());
  f.control.AwaitHeld();  // it runs, so it does not count

  std::vector<std::unique_ptr<Reader>> readers;
  const auto submissions = [&](int count) {
    std::vector<Submission> all;
    for (int i = 0; i < count; ++i) {
      readers.push_back(std::make_unique<Reader>());
      all.push_back({Greedy(MakePrompt(3), 2), readers.back()->stream()});
    }
    return all;
  };
  ASSERT_TRUE(f.engine.Submit(submissions(2)).ok());
  const absl::Status refused = f.engine.Submit(submissions(2));
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("max_queue 3"));
  EXPECT_EQ(f.metrics.requests_rejected_full.Value(), 2);
  EXPECT_TRUE(f.engine.Submit(submissions(1)).ok());
  f.control.Release();
  running.Wait();
  for (int i : {0, 1, 4}) EXPECT_TRUE(readers[i]->Wait().status.ok());
  EXPECT_EQ(f.metrics.requests_accepted.Value(), 4);
  EXPECT_TRUE(f.AtBaseLine());
}

TEST(Engine, FreePlacesAreNoPartOfTheQueue) {
  EngineFixture f({}, {.max_queue = 1, .max_sequences = 2});
  const auto submit = [&](int count) {
    std::vector<std::unique_ptr<Reader>> readers;
    std::vector<Submission> all;
    for (int i = 0; i < count; ++i) {
      readers.push_back(std::make_unique<Reader>());
      all.push_back({Greedy(MakePrompt(3), 2), readers.back()->stream()});
    }
    const bool taken = f.engine.Submit(std::move(all)).ok();
    for (int i = 0; taken && i < count; ++i) readers[i]->Wait();
    return taken;
  };
  EXPECT_FALSE(submit(4));
  EXPECT_TRUE(submit(3));
  // Whoever has seen the last Finish finds all places free.
  EXPECT_TRUE(submit(3));
}

TEST(Engine, RefusesWhatTheContextOrTheBlocksDoNotHold) {
  const auto refuses = [](const FakeModelConfig& model) {
    Reader reader;  // outlives the engine, which may still answer
    EngineFixture f(model);
    return absl::IsInvalidArgument(f.Submit(Greedy({1}, 64), reader));
  };
  EXPECT_TRUE(refuses({.context = 64, .kv_groups = {{.blocks = 5}}}));
  EXPECT_TRUE(refuses({.context = 65, .kv_groups = {{.blocks = 4}}}));
  EXPECT_FALSE(refuses({.context = 65, .kv_groups = {{.blocks = 5}}}));
}

TEST(Engine, RefusesWhatCouldNeverRun) {
  EngineFixture f({.context = 64, .kv_groups = {{.blocks = 4}}});
  Reader reader;
  const auto code = [&](Request request) {
    return f.Submit(std::move(request), reader).code();
  };
  EXPECT_EQ(code(Greedy({}, 1)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(Greedy(MakePrompt(60), 5)),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(Greedy({64}, 5)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(Greedy({-1}, 5)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(Greedy({1}, -1)), absl::StatusCode::kInvalidArgument);
  Request biased = Greedy({1}, 1);
  biased.sampling.logit_bias = {{64, 1.0f}};
  EXPECT_EQ(code(biased), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(f.Submit(Greedy(MakePrompt(60), 4), reader).ok());
  EXPECT_TRUE(reader.Wait().status.ok());
}

TEST(Engine, CountsTokensStepsAndTimes) {
  EngineFixture f({}, {.max_batch_tokens = 4});
  Reader reader;
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(8), 5), reader).ok());
  reader.Wait();
  EXPECT_EQ(f.metrics.prompt_tokens.Value(), 8);
  EXPECT_EQ(f.metrics.generated_tokens.Value(), 5);
  EXPECT_EQ(f.metrics.engine_steps.Value(), 6);
  EXPECT_EQ(f.metrics.finished_length.Value(), 1);
  EXPECT_EQ(f.metrics.kv_blocks_total.Value(), 64);
  const auto samples = [](prometheus::Histogram& histogram) {
    return histogram.Collect().histogram.sample_count;
  };
  EXPECT_EQ(samples(f.metrics.queue_seconds), 1u);
  EXPECT_EQ(samples(f.metrics.first_token_seconds), 1u);
  EXPECT_EQ(samples(f.metrics.inter_token_seconds), 4u);
  EXPECT_EQ(samples(f.metrics.request_seconds), 1u);
  const auto sum = [](prometheus::Histogram& histogram) {
    return histogram.Collect().histogram.sample_sum;
  };
  const Finished& finished = reader.Wait();
  EXPECT_DOUBLE_EQ(sum(f.metrics.queue_seconds), finished.queue_seconds);
  EXPECT_DOUBLE_EQ(sum(f.metrics.first_token_seconds),
                   finished.first_token_seconds);
  EXPECT_NEAR(sum(f.metrics.inter_token_seconds),
              finished.total_seconds - finished.first_token_seconds, 1e-9);
  EXPECT_DOUBLE_EQ(sum(f.metrics.request_seconds), finished.total_seconds);
}

TEST(Engine, CountsEachPreemptionOnceAndNotAsQueued) {
  // Both prompts fill a block; the older one's next token takes the third.
  EngineFixture f({.kv_groups = {{.blocks = 3}}},
                  {.max_queue = 1, .max_sequences = 2});
  f.control.Hold();
  Reader old, young;
  std::vector<Submission> both;
  both.push_back({Greedy(MakePrompt(16), 10), old.stream()});
  both.push_back({Greedy(MakePrompt(16, 1), 10), young.stream()});
  ASSERT_TRUE(f.engine.Submit(std::move(both)).ok());
  f.control.AwaitHeld();
  f.control.StepOnce();
  EXPECT_EQ(f.metrics.requests_running.Value(), 1);
  EXPECT_EQ(f.metrics.requests_waiting.Value(), 1);
  std::vector<Submission> more;
  Reader third, fourth;
  more.push_back({Greedy(MakePrompt(3), 2), third.stream()});
  more.push_back({Greedy(MakePrompt(3), 2), fourth.stream()});
  EXPECT_TRUE(f.engine.Submit(std::move(more)).ok());
  f.control.Release();
  EXPECT_TRUE(old.Wait().status.ok());
  EXPECT_TRUE(young.Wait().status.ok());
  EXPECT_EQ(f.metrics.preemptions.Value(), 1);
}

TEST(Engine, BatchesUpToItsLimits) {
  EngineFixture f({}, {.max_sequences = 3, .max_batch_tokens = 5});
  f.control.Hold();
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 6; ++i) {
    readers.push_back(std::make_unique<Reader>());
    ASSERT_TRUE(f.Submit(Greedy(MakePrompt(7, i), 6), *readers[i]).ok());
  }
  f.control.Release();
  for (auto& reader : readers) EXPECT_TRUE(reader->Wait().status.ok());
  EXPECT_EQ(f.control.max_rows(), 5);
  EXPECT_EQ(f.control.max_sequences(), 3);

  EngineFixture of_model({.max_batch_tokens = 4});
  Reader reader;
  ASSERT_TRUE(of_model.Submit(Greedy(MakePrompt(7), 2), reader).ok());
  EXPECT_TRUE(reader.Wait().status.ok());
  EXPECT_EQ(of_model.control.max_rows(), 4);
}

TEST(Engine, AnIdleEngineIsAliveAndAHeldOneIsNot) {
  EngineFixture f;
  EXPECT_EQ(f.engine.seconds_since_heartbeat(), 0);
  f.control.Hold();
  Reader reader;
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), 2), reader).ok());
  f.control.AwaitHeld();
  const double first = f.engine.seconds_since_heartbeat();
  EXPECT_GT(first, 0);
  EXPECT_GT(f.engine.seconds_since_heartbeat(), first);
  f.control.Release();
  reader.Wait();
  // It falls idle soon after the last Finish.
  const Clock::time_point end = Clock::now() + std::chrono::seconds(20);
  while (f.engine.seconds_since_heartbeat() != 0 && Clock::now() < end) {
    std::this_thread::yield();
  }
  EXPECT_EQ(f.engine.seconds_since_heartbeat(), 0);
}

TEST(Engine, PublishesACacheSnapshotWhenItFallsIdle) {
  EngineFixture f;
  Reader reader;
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), 2), reader).ok());
  reader.Wait();
  // Stop waits for the thread, which publishes once more before it ends.
  f.engine.Stop();
  EXPECT_EQ(f.engine.cache_snapshot().loads, 2u);
}

TEST(Engine, PublishesCacheSnapshotsWhileItIsBusy) {
  Reader reader;  // which the engine ends
  EngineFixture f({.context = 1 << 20, .kv_groups = {{.blocks = 1 << 16}}});
  ASSERT_TRUE(f.Submit(Greedy(MakePrompt(3), (1 << 20) - 3), reader).ok());
  const Clock::time_point end = Clock::now() + std::chrono::seconds(20);
  while (f.engine.cache_snapshot().loads == 0 && Clock::now() < end) {
    std::this_thread::yield();
  }
  EXPECT_GT(f.engine.cache_snapshot().loads, 0u);
}

}  // namespace
}  // namespace bullpen
