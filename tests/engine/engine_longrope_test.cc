// The engine over a model whose rotation depends on the length of a prompt.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "base/check.h"
#include "engine/engine.h"
#include "gtest/gtest.h"
#include "tests/engine/engine_fixture.h"
#include "tests/fakes/decoder.h"
#include "tests/fakes/golden.h"

namespace bullpen {
namespace {

// What a client sees of one request.
struct Output {
  std::vector<int32_t> ids = {};
  std::vector<float> logprobs =
      {};  // of the prompt after its first, then of ids
  friend bool operator==(const Output&, const Output&) = default;
};

class LongRopeEngine : public testing::TestWithParam<const char*> {
 protected:
  // All prompts at once, which have KV blocks for 96 tokens between them.
  std::vector<Output> Run(const EngineConfig& config) {
    ModelOptions options = WithActivations("f32");
    options.threads = 1;
    options.context = 96;
    options.max_sequences = 1;
    absl::StatusOr<PackedModel> packed =
        PackedModel::Open(PackedForTest(GetParam()));
    CHECK(packed.ok()) << packed.status();
    Metrics metrics;
    absl::StatusOr<std::unique_ptr<Model>> model =
        Model::Load(*std::move(packed), options, metrics);
    CHECK(model.ok()) << model.status();
    Engine engine(*std::move(model), config, metrics);

    std::vector<std::unique_ptr<Reader>> readers;
    std::vector<Submission> submissions;
    for (size_t p = 0; p < golden_.prompts.size(); ++p) {
      Request request = Greedy(golden_.prompts[p],
                               static_cast<int32_t>(golden_.greedy[p].size()));
      request.logprobs = 0;
      request.prompt_logprobs = true;
      readers.push_back(std::make_unique<Reader>());
      submissions.push_back({std::move(request), readers.back()->stream()});
    }
    EXPECT_TRUE(engine.Submit(std::move(submissions)).ok());
    std::vector<Output> outputs;
    for (auto& reader : readers) {
      EXPECT_TRUE(reader->Wait().status.ok()) << reader->Wait().status;
      Output& output = outputs.emplace_back(Output{.ids = reader->ids()});
      for (const auto& events : {reader->prompt(), reader->tokens()}) {
        for (const TokenEvent& event : events) {
          output.logprobs.push_back(event.logprob.value_or(1));
        }
      }
    }
    preemptions_ = metrics.preemptions.Value();
    return outputs;
  }

  const Golden golden_ = LoadGolden(GetParam());
  double preemptions_ = 0;  // of the last run
};

TEST_P(LongRopeEngine, GivesTheTokensOfTransformers) {
  const std::vector<Output> outputs = Run({.max_sequences = 1});
  ASSERT_EQ(outputs.size(), golden_.greedy.size());
  for (size_t p = 0; p < outputs.size(); ++p) {
    EXPECT_EQ(outputs[p].ids, golden_.greedy[p]) << "prompt " << p;
  }
}

TEST_P(LongRopeEngine, ChunksCompanyAndPreemptionDoNotShow) {
  const std::vector<Output> alone = Run({.max_sequences = 1});
  EXPECT_EQ(preemptions_, 0);
  for (const int32_t chunk : {7, 64, 256}) {
    EXPECT_EQ(Run({.max_batch_tokens = chunk}), alone) << "chunks of " << chunk;
    EXPECT_GT(preemptions_, 0) << "chunks of " << chunk;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, LongRopeEngine,
    testing::Values("tests/golden/longrope/llama",
                    "tests/golden/longrope/phimoe"),
    [](const auto& info) {
      return std::filesystem::path(info.param).filename().string();
    });

}  // namespace
}  // namespace bullpen
