#include "server/translate.h"

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/errors.h"

namespace bullpen {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class TranslateTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    tokenizer_ = Tokenizer::FromDirectory("models/default")->release();
  }
  static void TearDownTestSuite() {
    delete tokenizer_;
    tokenizer_ = nullptr;
  }

  TranslateTest() {
    facts_.id = "default";
    facts_.vocab = tokenizer_->vocab_size();
    facts_.context = 64;
    facts_.generation.eos_ids = {7};
    params_.prompt = std::vector<int32_t>{1, 2, 3};
  }

  absl::StatusOr<Request> Translate() const {
    return ToRequest(params_, facts_, limits_, *tokenizer_);
  }

  static Tokenizer* tokenizer_;
  ModelFacts facts_;
  RequestLimits limits_;
  GenerateParams params_;
};

Tokenizer* TranslateTest::tokenizer_ = nullptr;

struct BadCase {
  std::string name;
  std::function<void(GenerateParams&)> change;
  std::string param;
  std::string words;
};

class BadInputTest : public TranslateTest,
                     public ::testing::WithParamInterface<BadCase> {};

TEST_P(BadInputTest, IsRefusedByName) {
  GetParam().change(params_);
  const absl::Status status = Translate().status();
  ASSERT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_EQ(ErrorParam(status), GetParam().param);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().words));
}

INSTANTIATE_TEST_SUITE_P(
    Fields, BadInputTest,
    ::testing::Values(
        BadCase{"TemperatureLow", [](auto& p) { p.temperature = -0.5f; },
                "temperature", "at least 0 and at most 10, got -0.5"},
        BadCase{"TemperatureHigh", [](auto& p) { p.temperature = 10.5f; },
                "temperature", "10.5"},
        BadCase{"TemperatureNan", [](auto& p) { p.temperature = kNan; },
                "temperature", "nan"},
        BadCase{"TemperatureInfinite",
                [](auto& p) { p.temperature = kInfinity; }, "temperature",
                "inf"},
        BadCase{"TopPZero", [](auto& p) { p.top_p = 0.0f; }, "top_p",
                "above 0 and at most 1, got 0"},
        BadCase{"TopPHigh", [](auto& p) { p.top_p = 1.5f; }, "top_p", "1.5"},
        BadCase{"MinPOne", [](auto& p) { p.min_p = 1.0f; }, "min_p",
                "below 1, got 1"},
        BadCase{"TopKNegative", [](auto& p) { p.top_k = -2; }, "top_k", "-2"},
        BadCase{"RepetitionPenaltyZero",
                [](auto& p) { p.repetition_penalty = 0.0f; },
                "repetition_penalty", "above 0"},
        BadCase{"PresencePenalty", [](auto& p) { p.presence_penalty = 2.5f; },
                "presence_penalty", "2.5"},
        BadCase{"FrequencyPenalty",
                [](auto& p) { p.frequency_penalty = -2.5f; },
                "frequency_penalty", "-2.5"},
        BadCase{"LogitBiasHigh", [](auto& p) { p.logit_bias = {{3, 101}}; },
                "logit_bias", "101"},
        BadCase{"LogitBiasNan", [](auto& p) { p.logit_bias = {{3, kNan}}; },
                "logit_bias", "nan"},
        BadCase{"LogitBiasId", [](auto& p) { p.logit_bias = {{-1, 1}}; },
                "logit_bias", "-1"},
        BadCase{"LogitBiasCount",
                [](auto& p) { p.logit_bias.assign(1025, {1, 1.0f}); },
                "logit_bias", "1025 entries, at most 1024"},
        BadCase{"LogprobsNegative", [](auto& p) { p.logprobs = -1; },
                "logprobs", "-1"},
        BadCase{"LogprobsHigh", [](auto& p) { p.logprobs = 21; }, "logprobs",
                "at most 20, got 21"},
        BadCase{"MaxTokensNegative", [](auto& p) { p.max_tokens = -1; },
                "max_tokens", "-1"},
        BadCase{"StopCount", [](auto& p) { p.stop.assign(17, "x"); }, "stop",
                "17 entries, at most 16"},
        BadCase{"StopEmpty", [](auto& p) { p.stop = {"a", ""}; }, "stop",
                "stop[1] is empty"},
        BadCase{"StopLong", [](auto& p) { p.stop = {std::string(1025, 'x')}; },
                "stop", "1025 bytes, at most 1024"},
        BadCase{"StopUtf8", [](auto& p) { p.stop = {"\xff"}; }, "stop",
                "UTF-8"},
        BadCase{"StopIdHigh", [](auto& p) { p.stop_token_ids = {1 << 30}; },
                "stop_token_ids", "1073741824"},
        BadCase{"StopIdCount", [](auto& p) { p.stop_token_ids.assign(65, 1); },
                "stop_token_ids", "65 entries, at most 64"},
        BadCase{"PromptUtf8", [](auto& p) { p.prompt = "a\xc3"; }, "prompt",
                "UTF-8"},
        BadCase{"PromptEmptyText", [](auto& p) { p.prompt = ""; }, "prompt",
                "empty"},
        BadCase{"PromptEmptyIds",
                [](auto& p) { p.prompt = std::vector<int32_t>(); }, "prompt",
                "empty"},
        BadCase{"PromptId",
                [](auto& p) { p.prompt = std::vector<int32_t>{1, -5}; },
                "prompt", "prompt[1] is token id -5"}),
    [](const auto& info) { return info.param.name; });

TEST_F(TranslateTest, TheLimitsThemselvesAreAllowed) {
  params_.temperature = 10.0f;
  params_.top_p = 1.0f;
  params_.repetition_penalty = 10.0f;
  params_.presence_penalty = -2.0f;
  params_.frequency_penalty = 2.0f;
  params_.logit_bias.assign(1024, {1, -100.0f});
  params_.logprobs = 20;
  params_.stop.assign(16, std::string(1024, 'x'));
  params_.stop_token_ids.assign(64, facts_.vocab - 1);
  EXPECT_TRUE(Translate().ok()) << Translate().status();
}

TEST_F(TranslateTest, WhatTheRequestSaysReachesTheSampler) {
  params_.temperature = 0.5f;
  params_.top_k = 11;
  params_.top_p = 0.8f;
  params_.min_p = 0.2f;
  params_.repetition_penalty = 1.3f;
  params_.frequency_penalty = 0.6f;
  params_.logit_bias = {{3, -4.0f}};
  params_.logprobs = 2;
  const absl::StatusOr<Request> request = Translate();
  EXPECT_EQ(request->sampling.temperature, 0.5f);
  EXPECT_EQ(request->sampling.top_k, 11);
  EXPECT_EQ(request->sampling.top_p, 0.8f);
  EXPECT_EQ(request->sampling.min_p, 0.2f);
  EXPECT_EQ(request->sampling.repetition_penalty, 1.3f);
  EXPECT_EQ(request->sampling.presence_penalty, 0.0f);
  EXPECT_EQ(request->sampling.frequency_penalty, 0.6f);
  EXPECT_THAT(request->sampling.logit_bias, ElementsAre(std::pair(3, -4.0f)));
  EXPECT_EQ(request->logprobs, 2);
  params_.presence_penalty = 0.4f;
  EXPECT_EQ(Translate()->sampling.presence_penalty, 0.4f);
}

TEST_F(TranslateTest, OverTheContextHasOpenAisCodeAndBothNumbers) {
  params_.max_tokens = 62;
  const absl::Status status = Translate().status();
  EXPECT_EQ(ErrorCode(status), "context_length_exceeded");
  EXPECT_EQ(ErrorParam(status), "max_tokens");
  EXPECT_THAT(
      std::string(status.message()),
      HasSubstr("This model's maximum context length is 64 tokens. However, "
                "you requested 65 tokens (3 in the prompt, 62 in the "
                "completion)"));
}

TEST_F(TranslateTest, APromptThatFillsTheContextLeavesNoRoomForATokenUnset) {
  params_.prompt = std::vector<int32_t>(64, 1);
  const absl::Status status = Translate().status();
  EXPECT_EQ(ErrorCode(status), "context_length_exceeded");
  EXPECT_EQ(ErrorParam(status), "prompt");
  params_.max_tokens = 0;
  EXPECT_TRUE(Translate().ok());
}

TEST_F(TranslateTest, UnsetMaxTokensGoesToTheEndOfTheContext) {
  EXPECT_EQ(Translate()->max_tokens, 61);
}

TEST_F(TranslateTest, HugeMaxTokensDoesNotWrap) {
  params_.max_tokens = std::numeric_limits<int32_t>::max();
  EXPECT_EQ(ErrorCode(Translate().status()), "context_length_exceeded");
}

TEST_F(TranslateTest, UnsetFieldsTakeTheModelsDefaults) {
  facts_.generation.temperature = 0.7f;
  facts_.generation.top_p = 0.9f;
  facts_.generation.top_k = 20;
  facts_.generation.min_p = 0.1f;
  facts_.generation.repetition_penalty = 1.1f;
  const absl::StatusOr<Request> request = Translate();
  EXPECT_EQ(request->sampling.temperature, 0.7f);
  EXPECT_EQ(request->sampling.top_p, 0.9f);
  EXPECT_EQ(request->sampling.top_k, 20);
  EXPECT_EQ(request->sampling.min_p, 0.1f);
  EXPECT_EQ(request->sampling.repetition_penalty, 1.1f);
}

TEST_F(TranslateTest, GreedyLeavesTheModelsFiltersOutButKeepsTheRequests) {
  facts_.generation.top_k = 20;
  facts_.generation.repetition_penalty = 1.1f;
  params_.temperature = 0.0f;
  EXPECT_EQ(Translate()->sampling.top_k, 0);
  EXPECT_EQ(Translate()->sampling.repetition_penalty, 1.0f);
  params_.repetition_penalty = 1.2f;
  EXPECT_EQ(Translate()->sampling.repetition_penalty, 1.2f);
}

TEST_F(TranslateTest, AModelThatDoesNotSampleIsGreedyByDefault) {
  facts_.generation.do_sample = false;
  facts_.generation.temperature = 0.7f;
  EXPECT_EQ(Translate()->sampling.temperature, 0.0f);
  params_.temperature = 0.5f;
  EXPECT_EQ(Translate()->sampling.temperature, 0.5f);
}

TEST_F(TranslateTest, AnUnsetSeedIsDrawnAndFitsAJsonNumber) {
  const uint64_t first = Translate()->sampling.seed;
  EXPECT_NE(first, Translate()->sampling.seed);
  EXPECT_LT(first, uint64_t{1} << 53);
  params_.seed = ~uint64_t{0};
  EXPECT_EQ(Translate()->sampling.seed, ~uint64_t{0});
}

TEST_F(TranslateTest, EndOfSequenceStopsUnlessIgnored) {
  params_.stop_token_ids = {5};
  EXPECT_THAT(Translate()->stop_ids, ElementsAre(5, 7));
  params_.ignore_eos = true;
  EXPECT_THAT(Translate()->stop_ids, ElementsAre(5));
}

TEST_F(TranslateTest, TopKOfMinusOneIsOff) {
  params_.top_k = -1;
  EXPECT_EQ(Translate()->sampling.top_k, 0);
}

TEST_F(TranslateTest, EchoWantsPromptLogprobsOnlyWithLogprobs) {
  params_.echo = true;
  EXPECT_FALSE(Translate()->prompt_logprobs);
  params_.logprobs = 1;
  EXPECT_TRUE(Translate()->prompt_logprobs);
}

TEST_F(TranslateTest, TextBecomesTheTokenizersIds) {
  params_.prompt = "In the beginning";
  EXPECT_EQ(Translate()->prompt, tokenizer_->Encode("In the beginning", true));
}

TEST_F(TranslateTest, EveryRequestHasADeadline) {
  limits_.max_seconds = 10;
  const Clock::time_point now = Clock::now();
  const absl::StatusOr<Request> request = Translate();
  ASSERT_TRUE(request->deadline.has_value());
  EXPECT_GE(*request->deadline, now + std::chrono::seconds(10));
  EXPECT_LT(*request->deadline, now + std::chrono::seconds(20));
}

}  // namespace
}  // namespace bullpen
