#include "engine/engine.h"
#include "gtest/gtest.h"
#include "tests/engine/engine_fixture.h"

namespace bullpen {
namespace {

// What a client sees of one request.
struct Output {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;         // of the tokens and their tops
  std::vector<float> prompt_logprobs;  // likewise
  friend bool operator==(const Output&, const Output&) = default;
};

std::vector<float> Flatten(const std::vector<TokenEvent>& events) {
  std::vector<float> flat;
  for (const TokenEvent& event : events) {
    flat.push_back(event.logprob.value_or(1.0f));
    for (const TokenLogprob& top : event.top) {
      flat.push_back(static_cast<float>(top.id));
      flat.push_back(top.logprob);
    }
  }
  return flat;
}

Request MakeRequest(int32_t index) {
  Request request = {.prompt = MakePrompt(20 + 9 * index, index),
                     .max_tokens = 40,
                     .logprobs = 3,
                     .prompt_logprobs = index % 2 == 0};
  request.sampling = {.temperature = index % 3 == 0 ? 0.0f : 0.9f,
                      .top_k = index % 2 == 0 ? 12 : 0,
                      .top_p = 0.95f,
                      .seed = static_cast<uint64_t>(index),
                      .repetition_penalty = 1.1f,
                      .presence_penalty = 0.2f};
  return request;
}

constexpr int kRequests = 8;

std::vector<Output> RunTogether(EngineFixture& f) {
  std::vector<std::unique_ptr<Reader>> readers;
  std::vector<Submission> submissions;
  for (int i = 0; i < kRequests; ++i) {
    readers.push_back(std::make_unique<Reader>());
    submissions.push_back({MakeRequest(i), readers.back()->stream()});
  }
  EXPECT_TRUE(f.engine.Submit(std::move(submissions)).ok());
  std::vector<Output> outputs;
  for (auto& reader : readers) {
    EXPECT_TRUE(reader->Wait().status.ok());
    outputs.push_back(
        {reader->ids(), Flatten(reader->tokens()), Flatten(reader->prompt())});
  }
  return outputs;
}

std::vector<Output> RunAlone() {
  EngineFixture f({}, {.max_sequences = 1});
  return RunTogether(f);
}

TEST(EngineBits, ABatchGivesWhatEachGivesAlone) {
  EngineFixture f;
  EXPECT_EQ(RunTogether(f), RunAlone());
  EXPECT_EQ(f.control.max_sequences(), 8);
}

TEST(EngineBits, ChunksOfThePromptDoNotShow) {
  const std::vector<Output> alone = RunAlone();
  for (int32_t chunk : {1, 7, 64}) {
    EngineFixture f({}, {.max_batch_tokens = chunk});
    EXPECT_EQ(RunTogether(f), alone) << "chunks of " << chunk;
  }
}

TEST(EngineBits, PreemptionDoesNotShow) {
  const std::vector<Output> alone = RunAlone();
  for (int32_t chunk : {5, 256}) {
    EngineFixture f({.kv_groups = {{.blocks = 9}}},
                    {.max_batch_tokens = chunk});
    EXPECT_EQ(RunTogether(f), alone) << "chunks of " << chunk;
    EXPECT_GT(f.metrics.preemptions.Value(), 0);
    EXPECT_TRUE(f.AtBaseLine());
  }
}

TEST(EngineBits, BlocksOutOfAWindowGoToOthersUnseen) {
  const std::vector<KvGroup> ample = {{.window = 20, .blocks = 64},
                                      {.window = 0, .blocks = 64},
                                      {.window = 3, .blocks = 64}};
  EngineFixture one({.kv_groups = ample}, {.max_sequences = 1});
  const std::vector<Output> alone = RunTogether(one);
  EXPECT_NE(alone, RunAlone());
  for (int32_t chunk : {4, 7, 16}) {
    std::vector<KvGroup> scarce = ample;
    scarce[0].blocks = 7;
    scarce[1].blocks = 10;
    scarce[2].blocks = 5;
    EngineFixture f({.kv_groups = scarce}, {.max_batch_tokens = chunk});
    EXPECT_EQ(RunTogether(f), alone) << "chunks of " << chunk;
    EXPECT_GT(f.metrics.preemptions.Value(), 0);
    EXPECT_TRUE(f.AtBaseLine());
  }
}

TEST(EngineBits, PromptsCountAndTheirLogprobsComeOnceAlthoughPreempted) {
  // One old request grows while a long prompt behind it is cut into chunks.
  EngineFixture f({.kv_groups = {{.blocks = 8}}}, {.max_batch_tokens = 4});
  Reader old, young;
  Request request = Greedy(MakePrompt(100, 1), 3);
  request.prompt_logprobs = true;
  std::vector<Submission> both;
  both.push_back({Greedy(MakePrompt(14), 100), old.stream()});
  both.push_back({std::move(request), young.stream()});
  ASSERT_TRUE(f.engine.Submit(std::move(both)).ok());
  EXPECT_TRUE(old.Wait().status.ok());
  EXPECT_TRUE(young.Wait().status.ok());
  EXPECT_EQ(young.prompt().size(), 100u);
  EXPECT_GT(f.metrics.preemptions.Value(), 0);
  EXPECT_EQ(f.metrics.prompt_tokens.Value(), 14 + 100);
}

}  // namespace
}  // namespace bullpen
