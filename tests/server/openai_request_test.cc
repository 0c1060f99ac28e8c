#include "server/openai_request.h"

#include <ostream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/errors.h"
#include "server/openai_json.h"

namespace bullpen {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<OpenAiCall> Parse(bool chat, std::string_view body) {
  const RequestLimits limits;
  const auto json = ParseJsonObject(body, limits);
  if (!json.ok()) return json.status();
  return chat ? ParseChatCall(*json, limits)
              : ParseCompletionCall(*json, limits);
}

struct BadBody {
  bool chat;
  std::string body;
  std::string param;    // that the error names; empty: none
  std::string message;  // a part of it

  friend std::ostream& operator<<(std::ostream& out, const BadBody& bad) {
    return out << bad.body.substr(0, 120);
  }
};

class BadBodyTest : public ::testing::TestWithParam<BadBody> {};

TEST_P(BadBodyTest, IsInvalidArgumentThatNamesTheField) {
  const BadBody& bad = GetParam();
  const absl::Status status = Parse(bad.chat, bad.body).status();
  ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(ErrorParam(status).value_or(""), bad.param) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(bad.message));
}

std::string Nested(int depth) {
  return R"({"prompt":"a","metadata":)" + std::string(depth, '[') +
         std::string(depth, ']') + "}";
}

INSTANTIATE_TEST_SUITE_P(
    Syntax, BadBodyTest,
    ::testing::Values(
        BadBody{false, "", "", "not valid JSON, at byte"},
        BadBody{false, "{", "", "not valid JSON, at byte"},
        BadBody{false, R"({"prompt": tru})", "", "at byte 15"},
        BadBody{false, R"({"prompt":"a"} x)", "", "not valid JSON"},
        BadBody{false, R"({"prompt":1e999})", "", "not valid JSON"},
        BadBody{false, R"({"prompt":"\ud800"})", "", "not valid JSON"},
        BadBody{false, "[1]", "", "must be a JSON object"},
        BadBody{false, "null", "", "must be a JSON object"},
        BadBody{false, "{\"prompt\":\"\xff\"}", "", "not valid UTF-8"},
        BadBody{false, R"({"n":1,"n":2,"prompt":"a"})", "n", "twice"},
        BadBody{false, Nested(64), "", "more than 64 levels"},
        BadBody{false, std::string(100000, '['), "", "more than 64 levels"}));

INSTANTIATE_TEST_SUITE_P(
    Completions, BadBodyTest,
    ::testing::Values(
        BadBody{false, "{}", "prompt", "missing"},
        BadBody{false, R"({"prompt":null})", "prompt", "missing"},
        BadBody{false, R"({"prompt":[]})", "prompt", "must be a string"},
        BadBody{false, R"({"prompt":{"a":1}})", "prompt", "must be a string"},
        BadBody{false, R"({"prompt":["a",1]})", "prompt", "must not mix"},
        BadBody{false, R"({"prompt":[1,"a"]})", "prompt", "token ids"},
        BadBody{false, R"({"prompt":[1.5]})", "prompt", "token ids"},
        BadBody{false, R"({"prompt":[[1],[2,true]]})", "prompt[1]", "true"},
        BadBody{false, R"({"prompt":[99999999999]})", "prompt", "token ids"},
        BadBody{false, R"({"prompt":[18446744073709551615]})", "prompt",
                "18446744073709551615"},
        BadBody{false, R"({"prompt":[-99999999999]})", "prompt", "token ids"},
        BadBody{false, R"({"prompt":"a","max_tokens":"5"})", "max_tokens",
                "32-bit integer, got \"5\""},
        BadBody{
            false,
            R"({"prompt":"a","max_tokens":")" + std::string(81, 'x') + "\"}",
            "max_tokens", "got a string of 81 bytes"},
        BadBody{
            false,
            R"({"prompt":"a","max_tokens":[")" + std::string(160, 'x') + "\"]}",
            "max_tokens", "got an array"},
        BadBody{false, R"({"prompt":"a","max_tokens":1e300})", "max_tokens",
                "32-bit integer"},
        BadBody{false, R"({"prompt":"a","max_tokens":2.5})", "max_tokens",
                "got 2.5"},
        BadBody{false, R"({"prompt":"a","max_tokens":4294967296})",
                "max_tokens", "got 4294967296"},
        BadBody{false, R"({"prompt":"a","temperature":"hot"})", "temperature",
                "a number, got \"hot\""},
        BadBody{false, R"({"prompt":"a","temperature":1e308})", "temperature",
                "a number"},
        BadBody{false, R"({"prompt":"a","seed":18446744073709551615})", "seed",
                "64-bit integer"},
        BadBody{false, R"({"prompt":"a","seed":1e300})", "seed",
                "64-bit integer"},
        BadBody{false, R"({"prompt":"a","top_k":-4294967296})", "top_k",
                "got -4294967296"},
        BadBody{false, R"({"prompt":"a","stream":1})", "stream", "true or"},
        BadBody{false, R"({"prompt":"a","n":0})", "n", "at least 1"},
        BadBody{false, R"({"prompt":"a","n":1000000000})", "n", "at most 8"},
        BadBody{false, R"({"prompt":"a","stop":5})", "stop", "got 5"},
        BadBody{false, R"({"prompt":"a","stop":["a",null]})", "stop", "null"},
        BadBody{false, R"({"prompt":"a","logit_bias":[1]})", "logit_bias",
                "object"},
        BadBody{false, R"({"prompt":"a","logit_bias":{"x":1}})", "logit_bias",
                "no token id"},
        BadBody{false, R"({"prompt":"a","logit_bias":{"1x":1}})", "logit_bias",
                "no token id"},
        BadBody{false, R"({"prompt":"a","logit_bias":{"1":1e300}})",
                "logit_bias", "of token 1"},
        BadBody{false, R"({"prompt":"a","logprobs":true})", "logprobs",
                "integer"},
        BadBody{false, R"({"prompt":"a","suffix":"b"})", "suffix",
                "not supported"},
        BadBody{false, R"({"prompt":"a","best_of":3})", "best_of",
                "null or 1, got 3"},
        BadBody{false, R"({"prompt":"a","echo":"yes"})", "echo", "true or"},
        BadBody{false, R"({"prompt":"a","model":7})", "model", "a string"},
        BadBody{false, R"({"prompt":"a","tempurature":1})", "tempurature",
                "unknown field"},
        BadBody{false, R"({"prompt":"a","stream_options":{}})",
                "stream_options", "only allowed with stream"},
        BadBody{false,
                R"({"prompt":"a","stream":true,"stream_options":{"x":1}})",
                "stream_options.x", "unknown field"},
        BadBody{false, R"({"prompt":"a","response_format":{"type":"json"}})",
                "response_format", "not supported"},
        BadBody{false, R"({"prompt":"a","prompt_logprobs":-1})",
                "prompt_logprobs", "not supported"}));

INSTANTIATE_TEST_SUITE_P(
    Chat, BadBodyTest,
    ::testing::Values(
        BadBody{true, "{}", "messages", "missing"},
        BadBody{true, R"({"messages":[]})", "messages", "at least one"},
        BadBody{true, R"({"messages":"hi"})", "messages", "list"},
        BadBody{true, R"({"messages":[7]})", "messages[0]", "an object"},
        BadBody{true, R"({"messages":[{"content":"a"}]})", "messages[0].role",
                "missing"},
        BadBody{true, R"({"messages":[{"role":"user"}]})",
                "messages[0].content", "missing"},
        BadBody{true, R"({"messages":[{"role":"user","content":5}]})",
                "messages[0].content", "got 5"},
        BadBody{true,
                R"({"messages":[{"role":"user","content":[
                    {"type":"image_url","image_url":{"url":"x"}}]}]})",
                "messages[0].content[0].type", "\"image_url\""},
        BadBody{true,
                R"({"messages":[{"role":"user","content":[{"type":"text"}]}]})",
                "messages[0].content[0].text", "missing"},
        BadBody{true,
                R"({"messages":[{"role":"user","content":"a","mood":"good"}]})",
                "messages[0].mood", "unknown field"},
        BadBody{
            true,
            R"({"messages":[{"role":"assistant","tool_calls":[{"id":"a"}]}]})",
            "messages[0].tool_calls[0]", ".function.name is missing"},
        BadBody{true, R"({"messages":[{"role":"assistant","tool_calls":{}}]})",
                "messages[0].tool_calls", "must be a list"},
        BadBody{true,
                R"({"messages":[{"role":"user","content":"a"}],"tools":[
                    {"type":7,"function":{"name":"f"}}]})",
                "tools[0]", "of type \"function\""},
        BadBody{true,
                R"({"messages":[{"role":"user","content":"a"}],"tools":"f"})",
                "tools", "must be a list"},
        BadBody{true,
                R"({"messages":[{"role":"user","content":"a"}],
                    "tools":[{"type":"function"}]})",
                "tools[0]", "tools[0].function.name is missing"},
        BadBody{true,
                R"({"messages":[{"role":"user","content":"a"}],
                    "tool_choice":"required"})",
                "tool_choice", "\"required\""},
        BadBody{true,
                R"({"messages":[{"role":"user","content":"a"}],
                    "top_logprobs":3})",
                "top_logprobs", "logprobs: true"},
        BadBody{true,
                R"({"messages":[{"role":"user","content":"a"}],"prompt":"a"})",
                "prompt", "unknown field"},
        BadBody{true,
                R"({"messages":[{"role":"user","content":"a"}],
                    "chat_template_kwargs":{"messages":"x"}})",
                "chat_template_kwargs", "must not set \"messages\""},
        BadBody{true,
                R"({"messages":[{"role":"user","content":"a"}],
                    "chat_template_kwargs":{"a":[1]}})",
                "chat_template_kwargs", "chat_template_kwargs.a"},
        BadBody{true,
                R"({"messages":[{"role":"user","content":"a"}],
                    "chat_template":"{{ 1 }}"})",
                "chat_template", "not supported"}));

TEST(OpenAiRequestTest, TakesEveryShapeOfPrompt) {
  const auto text = Parse(false, R"({"prompt":"a"})");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(std::get<std::string>(text->prompts[0].prompt), "a");
  const auto texts = Parse(false, R"({"prompt":["a","b"]})");
  ASSERT_TRUE(texts.ok()) << texts.status();
  ASSERT_EQ(texts->prompts.size(), 2u);
  EXPECT_EQ(std::get<std::string>(texts->prompts[1].prompt), "b");
  const auto ids = Parse(false, R"({"prompt":[3,4]})");
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_THAT(std::get<std::vector<int32_t>>(ids->prompts[0].prompt),
              ElementsAre(3, 4));
  const auto lists = Parse(false, R"({"prompt":[[3],[4,5]]})");
  ASSERT_TRUE(lists.ok()) << lists.status();
  ASSERT_EQ(lists->prompts.size(), 2u);
  EXPECT_THAT(std::get<std::vector<int32_t>>(lists->prompts[1].prompt),
              ElementsAre(4, 5));
}

TEST(OpenAiRequestTest, TheLimitsThemselvesAreAllowed) {
  std::string prompts = "\"a\"";
  for (int i = 1; i < 32; ++i) prompts += ",\"a\"";
  const auto call = Parse(false, R"({"n":8,"prompt":[)" + prompts + "]}");
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->prompts.size(), 32u);
  EXPECT_EQ(call->n, 8);
  EXPECT_FALSE(Parse(false, R"({"prompt":["a",)" + prompts + "]}").ok());

  std::string variables = R"("a0":")" + std::string(1024, 'x') + "\"";
  variables += ",\"" + std::string(64, 'b') + "\":1";
  for (int i = 2; i < 32; ++i) {
    variables += ",\"a" + std::to_string(i) + "\":1";
  }
  const auto chat = Parse(true, R"({"messages":[{"role":"user","content":"a"}],
                "chat_template_kwargs":{)" +
                                    variables + "}}");
  EXPECT_TRUE(chat.ok()) << chat.status();
}

TEST(OpenAiRequestTest, TheNewerNameOfARepetitionPenaltyWins) {
  const auto both = Parse(
      false, R"({"prompt":"a","repeat_penalty":2,"repetition_penalty":3})");
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_EQ(both->prompts[0].repetition_penalty, 3.0f);
  const auto older = Parse(false, R"({"prompt":"a","repeat_penalty":2})");
  ASSERT_TRUE(older.ok()) << older.status();
  EXPECT_EQ(older->prompts[0].repetition_penalty, 2.0f);
}

TEST(OpenAiRequestTest, ReadsSamplingFields) {
  const auto call = Parse(false, R"({"prompt":"a","temperature":0.5,"top_p":0.9,
      "top_k":-1,"min_p":0.1,"seed":-1,"stop":"x","max_tokens":7.0,"n":2,
      "presence_penalty":1,"frequency_penalty":-1,"repetition_penalty":1.5,
      "logit_bias":{"5":-100},"stop_token_ids":[9],"ignore_eos":true,
      "logprobs":0,"echo":true,"stream":true,
      "stream_options":{"include_usage":true}})");
  ASSERT_TRUE(call.ok()) << call.status();
  const GenerateParams& params = call->prompts[0];
  EXPECT_EQ(params.temperature, 0.5f);
  EXPECT_EQ(params.top_k, -1);
  EXPECT_EQ(params.seed, ~uint64_t{0});
  EXPECT_THAT(params.stop, ElementsAre("x"));
  EXPECT_EQ(params.max_tokens, 7);
  EXPECT_THAT(params.logit_bias, ElementsAre(std::pair(5, -100.0f)));
  EXPECT_THAT(params.stop_token_ids, ElementsAre(9));
  EXPECT_EQ(params.logprobs, 0);
  EXPECT_TRUE(params.echo && params.ignore_eos);
  EXPECT_TRUE(call->stream && call->include_usage);
  EXPECT_EQ(call->n, 2);
}

TEST(OpenAiRequestTest, AcceptsWhatClientsSendByHabit) {
  const auto call = Parse(true, R"({"model":"m","messages":[
      {"role":"user","content":"a","name":"Bo"}],"user":"u","metadata":{"k":"v"},
      "store":false,"service_tier":"auto","safety_identifier":"s",
      "prompt_cache_key":"k","parallel_tool_calls":true,"tools":null,
      "tool_choice":"auto","response_format":{"type":"text"},"n":null,
      "modalities":["text"],"stream_options":null,"top_logprobs":0})");
  EXPECT_TRUE(call.ok()) << call.status();
  const auto completion = Parse(false, R"({"prompt":"a","suffix":null})");
  EXPECT_TRUE(completion.ok()) << completion.status();
}

TEST(OpenAiRequestTest, MessagesHaveALimit) {
  RequestLimits limits;
  limits.max_messages = 2;
  const auto call = [&](const std::string& messages) {
    const auto body =
        ParseJsonObject(R"({"messages":[)" + messages + "]}", limits);
    return ParseChatCall(*body, limits).status();
  };
  const std::string one = R"({"role":"user","content":"a"})";
  EXPECT_TRUE(call(one + "," + one).ok());
  const absl::Status three = call(one + "," + one + "," + one);
  EXPECT_EQ(ErrorParam(three), "messages");
  EXPECT_THAT(std::string(three.message()), HasSubstr("3 entries, at most 2"));
}

TEST(OpenAiRequestTest, AnEmptyListOfToolsIsNone) {
  const auto call = Parse(true, R"({"messages":[
      {"role":"assistant","content":"a","reasoning_content":"b"}],
      "tools":[]})");
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_TRUE(call->tools.is_null());
  EXPECT_EQ(call->messages[0]["reasoning_content"], "b");
}

TEST(OpenAiRequestTest, ContentPartsAreJoinedAndNullIsEmpty) {
  const auto call = Parse(true, R"({"messages":[
      {"role":"assistant","content":null},
      {"role":"user","content":[{"type":"text","text":"a"},
                                {"type":"text","text":"b"}]}]})");
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->messages[0]["content"], "");
  EXPECT_EQ(call->messages[1]["content"], "a\nb");
}

TEST(OpenAiRequestTest, ToolsAndTheirCallsKeepTheOrderOfTheirKeys) {
  const std::string tools =
      R"([{"type":"function","function":{"name":"f","b":1.0,"a":{}}}])";
  const std::string calls =
      R"([{"id":"x","function":{"name":"f","arguments":"{}"}}])";
  const std::string body = R"({"messages":[
      {"role":"assistant","content":null,"tool_calls":)" +
                           calls + R"(},
      {"role":"tool","content":"7","tool_call_id":"x"},
      {"role":"assistant","content":"","tool_calls":[]}],"tools":)" +
                           tools;
  const auto call = Parse(true, body + "}");
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->tools.dump(), tools);
  EXPECT_EQ(call->messages[0]["tool_calls"].dump(), calls);
  EXPECT_TRUE(call->messages[0]["content"].is_null());
  EXPECT_EQ(call->messages[1]["tool_call_id"], "x");
  EXPECT_EQ(call->messages[2].dump(), R"({"role":"assistant","content":""})");
  const auto none = Parse(true, body + R"(,"tool_choice":"none"})");
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_TRUE(none->tools.is_null());
}

TEST(OpenAiRequestTest, ObjectsOfManyKeysAreReadInLinearTime) {
  std::string body = R"({"prompt":"a","metadata":{)";
  for (int i = 0; i < 200000; ++i) {
    body += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":1";
  }
  EXPECT_TRUE(Parse(false, body + "}}").ok());
}

TEST(OpenAiRequestTest, CompletionsMakeSixteenTokensAndChatAsManyAsFit) {
  const auto completion = Parse(false, R"({"prompt":"a"})");
  ASSERT_TRUE(completion.ok());
  EXPECT_EQ(completion->prompts[0].max_tokens, 16);
  const auto chat =
      Parse(true, R"({"messages":[{"role":"user","content":"a"}]})");
  ASSERT_TRUE(chat.ok());
  EXPECT_EQ(chat->prompts[0].max_tokens, std::nullopt);
  EXPECT_FALSE(chat->prompts[0].add_special_tokens);
}

TEST(OpenAiRequestTest, ChatLogprobsAreABooleanAndACount) {
  const auto call = Parse(true, R"({"messages":[{"role":"user","content":"a"}],
      "logprobs":true,"top_logprobs":4,"max_tokens":3,
      "max_completion_tokens":5})");
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->prompts[0].logprobs, 4);
  EXPECT_EQ(call->prompts[0].max_tokens, 5);
}

TEST(OpenAiRequestTest, TemplateVariablesReachTheTemplate) {
  const auto call = Parse(true, R"({"messages":[{"role":"user","content":"a"}],
      "chat_template_kwargs":{"enable_thinking":false},
      "reasoning_effort":"low"})");
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->variables["enable_thinking"], false);
  EXPECT_EQ(call->variables["add_generation_prompt"], true);
  EXPECT_EQ(call->variables["reasoning_effort"], "low");
}

TEST(OpenAiJsonTest, CountsObjectsListsAndFields) {
  RequestLimits limits;
  limits.max_json_parts = 3;
  EXPECT_TRUE(ParseJsonObject(R"({"a":[1,2,3]})", limits).ok());
  limits.max_json_parts = 2;
  const absl::Status refused =
      ParseJsonObject(R"({"a":[1,2,3]})", limits).status();
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("more than 2 objects, lists and fields"));
}

TEST(OpenAiJsonTest, EscapesWhatJsonCannotHold) {
  std::string out;
  AppendJsonString(out, "a\"\\\n\x01\xC3\xA9\xFF");
  EXPECT_EQ(out, "\"a\\\"\\\\\\n\\u0001\xC3\xA9\xEF\xBF\xBD\"");
  std::string number;
  AppendJsonNumber(number, -std::numeric_limits<float>::infinity());
  EXPECT_EQ(number, "-9999");
}

}  // namespace
}  // namespace bullpen
