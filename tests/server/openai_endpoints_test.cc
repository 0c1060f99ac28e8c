#include <set>
#include <string>

#include "base/strings.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_chat_template.h"
#include "tests/server/http_fixture.h"

namespace bullpen {
namespace {

using nlohmann::json;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class OpenAiEndpointsTest : public HttpFixture {
 protected:
  // The events of a stream but [DONE], which must be the last.
  static std::vector<json> Chunks(const ClientResponse& response) {
    std::vector<json> chunks;
    std::vector<std::string> events = response.events();
    EXPECT_FALSE(events.empty());
    if (events.empty()) return chunks;
    EXPECT_EQ(events.back(), "[DONE]");
    events.pop_back();
    for (const std::string& event : events) {
      chunks.push_back(json::parse(event, nullptr, false));
      EXPECT_FALSE(chunks.back().is_discarded()) << event;
    }
    return chunks;
  }

  ClientResponse Complete(const json& body) {
    return client().Post("/v1/completions", body.dump());
  }
  ClientResponse Chat(json body) {
    body["messages"] = {{{"role", "user"}, {"content", "hi"}}};
    return client().Post("/v1/chat/completions", body.dump());
  }
};

TEST_F(OpenAiEndpointsTest, WholeCompletionHasOpenAisShape) {
  Start();
  Say("Once upon a time");
  const ClientResponse response = client().Post(
      "/v1/completions", R"({"prompt":"Hello"})", "x-request-id: r1\r\n");
  EXPECT_EQ(response.status, 200);
  const json body = response.json();
  EXPECT_EQ(body["id"], "cmpl-r1");
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(body["model"], "bullpen-default");
  EXPECT_TRUE(body["created"].is_number_integer());
  ASSERT_EQ(body["choices"].size(), 1u);
  const json& choice = body["choices"][0];
  EXPECT_EQ(choice["index"], 0);
  EXPECT_EQ(choice["text"], "Once upon a time");
  EXPECT_EQ(choice["logprobs"], nullptr);
  EXPECT_EQ(choice["finish_reason"], "length");
  const int64_t prompt = tokenizer().Encode("Hello", true).size();
  const int64_t completion =
      tokenizer().Encode("Once upon a time", false).size();
  EXPECT_EQ(body["usage"], (json{{"prompt_tokens", prompt},
                                 {"completion_tokens", completion},
                                 {"total_tokens", prompt + completion}}));
}

TEST_F(OpenAiEndpointsTest, WholeChatHasOpenAisShape) {
  Start();
  Say("Hi there", FinishReason::kStop);
  const ClientResponse response = Chat({{"model", "bullpen-default"}});
  EXPECT_EQ(response.status, 200) << response.body;
  const json body = response.json();
  EXPECT_THAT(body["id"].get<std::string>(), StartsWith("chatcmpl-"));
  EXPECT_EQ(body["object"], "chat.completion");
  EXPECT_EQ(body["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(body["choices"][0]["message"]["content"], "Hi there");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(engine().requests()[0].prompt,
            tokenizer().Encode("user: hi\nassistant: ", false));
}

TEST_F(OpenAiEndpointsTest, StreamedChatBeginsWithRoleAndEndsWithDone) {
  Start();
  Say("Hi there, you", FinishReason::kStop);
  const ClientResponse response = Chat({{"stream", true}});
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.headers.at("content-type"),
            "text/event-stream; charset=utf-8");
  EXPECT_EQ(response.headers.at("cache-control"), "no-cache");
  const std::vector<json> chunks = Chunks(response);
  ASSERT_GE(chunks.size(), 3u);
  EXPECT_EQ(chunks.front()["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(chunks.back()["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(chunks.back()["choices"][0]["delta"], json::object());
  std::string text;
  for (const json& chunk : chunks) {
    EXPECT_EQ(chunk["id"], chunks[0]["id"]);
    EXPECT_EQ(chunk["created"], chunks[0]["created"]);
    EXPECT_EQ(chunk["object"], "chat.completion.chunk");
    EXPECT_FALSE(chunk.contains("usage"));
    ASSERT_EQ(chunk["choices"].size(), 1u);
    text += chunk["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(text, "Hi there, you");
}

TEST_F(OpenAiEndpointsTest, UsageChunkComesLastAndOnlyIfAskedFor) {
  Start();
  Say("one two three");
  const std::vector<json> chunks =
      Chunks(Complete({{"prompt", "a"},
                       {"stream", true},
                       {"stream_options", {{"include_usage", true}}}}));
  for (size_t i = 0; i + 1 < chunks.size(); ++i) {
    EXPECT_TRUE(chunks[i].contains("usage") && chunks[i]["usage"].is_null());
    EXPECT_EQ(chunks[i]["choices"].size(), 1u);
  }
  EXPECT_EQ(chunks.back()["choices"], json::array());
  EXPECT_EQ(chunks.back()["usage"]["completion_tokens"],
            tokenizer().Encode("one two three", false).size());
}

TEST_F(OpenAiEndpointsTest, StopStringEndsTheTextAndTheWork) {
  Start();
  FakeAnswer answer = Tokens("alpha beta gamma delta ");
  answer.endless = true;
  engine().SetScript([answer](const Request&) { return answer; });
  const json body =
      Complete({{"prompt", "a"}, {"stop", {" gamma"}}, {"max_tokens", 1000}})
          .json();
  EXPECT_EQ(body["choices"][0]["text"], "alpha beta");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  std::string streamed;
  for (const json& chunk : Chunks(Complete({{"prompt", "a"},
                                            {"stop", " gamma"},
                                            {"stream", true},
                                            {"max_tokens", 1000}}))) {
    streamed += chunk["choices"][0]["text"].get<std::string>();
  }
  EXPECT_EQ(streamed, "alpha beta");
  EXPECT_TRUE(engine().AwaitIdle());
  EXPECT_EQ(engine().cancelled(), 0);
}

TEST_F(OpenAiEndpointsTest, ChoicesArePromptMajorWithSeedsOfTheirOwn) {
  Start();
  engine().SetScript([this](const Request& request) {
    return Tokens(
        absl::StrCat(" ", request.sampling.seed, " ", request.prompt[0]));
  });
  const json body =
      Complete({{"prompt", json::array({{7}, {9}})}, {"n", 2}, {"seed", 40}})
          .json();
  ASSERT_EQ(body["choices"].size(), 4u) << body;
  const char* expected[] = {" 40 7", " 41 7", " 40 9", " 41 9"};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(body["choices"][i]["index"], i);
    EXPECT_EQ(body["choices"][i]["text"], expected[i]);
  }
  EXPECT_EQ(body["usage"]["prompt_tokens"], 2);
}

TEST_F(OpenAiEndpointsTest, StreamOfTwoChoicesEndsBoth) {
  Start();
  Say("left right");
  std::set<int> finished;
  for (const json& chunk : Chunks(Chat({{"stream", true}, {"n", 2}}))) {
    const json& choice = chunk["choices"][0];
    if (!choice["finish_reason"].is_null()) {
      finished.insert(choice["index"].get<int>());
    }
  }
  EXPECT_THAT(finished, ::testing::ElementsAre(0, 1));
}

TEST_F(OpenAiEndpointsTest, AResponseWaitsForItsLongestChoice) {
  Start();
  std::string text;
  for (int i = 0; i < 60; ++i) text += " word";
  engine().SetScript([this, text](const Request& request) {
    return Tokens(request.prompt[0] == 7 ? text : " x");
  });
  const json body = Complete({{"prompt", json::array({{7}, {9}})}}).json();
  EXPECT_EQ(body["choices"][0]["text"], text);
  EXPECT_EQ(body["choices"][1]["text"], " x");
  std::vector<int> finished;
  for (const json& chunk : Chunks(
           Complete({{"prompt", json::array({{7}, {9}})}, {"stream", true}}))) {
    const json& choice = chunk["choices"][0];
    if (!choice["finish_reason"].is_null()) finished.push_back(choice["index"]);
  }
  EXPECT_THAT(finished, ::testing::ElementsAre(1, 0));  // each of them once
}

TEST_F(OpenAiEndpointsTest, AnEchoOfIdsTellsSpecialTokens) {
  Start();
  Say("x");
  const std::optional<int32_t> special = tokenizer().IdOf("<|im_end|>");
  ASSERT_TRUE(special.has_value());
  const json body =
      Complete({{"prompt", {*special}}, {"max_tokens", 4}, {"echo", true}})
          .json();
  EXPECT_EQ(body["choices"][0]["text"], "<|im_end|>x");
}

// To try again would not help, as it does with a full queue.
TEST_F(OpenAiEndpointsTest, AChatBeyondTheTemplatesLimitsIsABadRequest) {
  Start();
  FakeRendering::FailWith(absl::ResourceExhaustedError("output exceeds"));
  const ClientResponse response = Chat(json::object());
  FakeRendering::FailWith(absl::OkStatus());
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.json()["error"]["param"], "messages");
}

TEST_F(OpenAiEndpointsTest, ChoicesAndTheirLogprobsHaveLimitsInAll) {
  limits().max_choices = 4;
  limits().max_logprobs_in_all = 40;
  Start();
  Say("x");
  const auto param = [&](json body, int prompts) {
    for (int i = 0; i < prompts; ++i) body["prompt"].push_back({7, 9});
    const ClientResponse response = Complete(body);
    return response.status == 200 ? "" : response.json()["error"]["param"];
  };
  EXPECT_EQ(param({{"n", 2}}, 2), "");
  EXPECT_EQ(param({{"n", 1}}, 5), "n");
  // For each token of each of four choices two log probabilities.
  const json scored = {{"n", 2}, {"logprobs", 1}, {"echo", true}};
  json fits = scored, exceeds = scored;
  fits["max_tokens"] = 3;
  exceeds["max_tokens"] = 4;
  EXPECT_EQ(param(fits, 2), "");
  EXPECT_EQ(param(exceeds, 2), "logprobs");
}

// What lm-eval asks for to read log-likelihoods.
TEST_F(OpenAiEndpointsTest, EchoGivesLogprobsOfThePrompt) {
  Start();
  const std::vector<int32_t> ids = tokenizer().Encode("red green", false);
  ASSERT_GE(ids.size(), 2u);
  engine().SetScript([](const Request& request) {
    FakeAnswer answer{.reason = FinishReason::kLength};
    for (size_t i = 0; i < request.prompt.size(); ++i) {
      TokenEvent event{.id = request.prompt[i]};
      if (i > 0) {
        event.logprob = -0.5f * static_cast<float>(i);
        event.top = {{.id = 300, .logprob = -0.25f}};
      }
      answer.prompt.push_back(event);
    }
    return answer;
  });
  const json body =
      Complete(
          {{"prompt", ids}, {"max_tokens", 0}, {"logprobs", 1}, {"echo", true}})
          .json();
  const json& choice = body["choices"][0];
  EXPECT_EQ(choice["text"], "red green");
  const json& logprobs = choice["logprobs"];
  ASSERT_EQ(logprobs["tokens"].size(), ids.size());
  ASSERT_EQ(logprobs["text_offset"].size(), ids.size());
  EXPECT_EQ(logprobs["token_logprobs"][0], nullptr);
  EXPECT_EQ(logprobs["top_logprobs"][0], nullptr);
  EXPECT_EQ(logprobs["token_logprobs"][1], -0.5);
  EXPECT_EQ(logprobs["top_logprobs"][1][tokenizer().TokenBytes(300)], -0.25);
  EXPECT_EQ(logprobs["top_logprobs"][1][tokenizer().TokenBytes(ids[1])], -0.5);
  EXPECT_EQ(logprobs["text_offset"][0], 0);
  EXPECT_EQ(logprobs["text_offset"][1], tokenizer().TokenBytes(ids[0]).size());
  EXPECT_TRUE(engine().requests()[0].prompt_logprobs);
}

TEST_F(OpenAiEndpointsTest, ChatLogprobsCarryBytes) {
  Start();
  FakeAnswer answer = Tokens("\u00e9");
  answer.tokens[0].logprob = -1.5f;
  answer.tokens[0].top = {{.id = answer.tokens[0].id, .logprob = -1.5f}};
  engine().SetScript([answer](const Request&) { return answer; });
  const json body = Chat({{"logprobs", true}, {"top_logprobs", 1}}).json();
  const json& token = body["choices"][0]["logprobs"]["content"][0];
  const std::string bytes = tokenizer().TokenBytes(answer.tokens[0].id);
  EXPECT_EQ(token["token"], "\uFFFD");  // half a character
  EXPECT_EQ(token["logprob"], -1.5);
  EXPECT_EQ(token["bytes"], std::vector<uint8_t>(bytes.begin(), bytes.end()));
  EXPECT_EQ(token["top_logprobs"][0]["bytes"], token["bytes"]);
}

TEST_F(OpenAiEndpointsTest, TheTokenThatWasTakenIsToldOnceAmongTheLikeliest) {
  Start();
  FakeAnswer answer = Tokens("yes");
  answer.tokens[0].logprob = -1.5f;
  answer.tokens[0].top = {{.id = answer.tokens[0].id, .logprob = -1.5f}};
  engine().SetScript([answer](const Request&) { return answer; });
  EXPECT_THAT(Complete({{"prompt", "a"}, {"logprobs", 1}}).body,
              HasSubstr(R"("top_logprobs":[{"yes":-1.5}])"));
}

TEST_F(OpenAiEndpointsTest, EmojiIsNeverSplitAcrossDeltas) {
  Start();
  const std::string text = "a\xF0\x9F\xA6\x99\xE2\x98\x83z";
  Say(text);
  std::string joined;
  for (const json& chunk :
       Chunks(Complete({{"prompt", "a"}, {"stream", true}}))) {
    const std::string piece = chunk["choices"][0]["text"].get<std::string>();
    EXPECT_EQ(piece.find("\xEF\xBF\xBD"), std::string::npos);
    joined += piece;
  }
  EXPECT_EQ(joined, text);
}

struct Failure {
  absl::Status status;
  int http_status;
  std::string code;
};

class FailureTest : public OpenAiEndpointsTest,
                    public ::testing::WithParamInterface<Failure> {};

TEST_P(FailureTest, OfTheEngineIsAnErrorWholeOrStreamed) {
  Start();
  FakeAnswer answer = Tokens("partly");
  answer.status = GetParam().status;
  engine().SetScript([answer](const Request&) { return answer; });
  const ClientResponse whole = Complete({{"prompt", "a"}});
  EXPECT_EQ(whole.status, GetParam().http_status);
  EXPECT_EQ(whole.json()["error"]["code"], GetParam().code);
  const ClientResponse streamed = Complete({{"prompt", "a"}, {"stream", true}});
  EXPECT_EQ(streamed.status, 200);
  ASSERT_EQ(streamed.events().size(), answer.tokens.size() + 1);
  const json last = json::parse(streamed.events().back(), nullptr, false);
  EXPECT_EQ(last["error"]["code"], GetParam().code);
  EXPECT_TRUE(client().ReceiveEnd());
}

INSTANTIATE_TEST_SUITE_P(
    All, FailureTest,
    ::testing::Values(
        Failure{absl::DataLossError("/model/experts-1"), 500, "data_loss"},
        Failure{absl::DeadlineExceededError("late"), 504, "deadline_exceeded"},
        Failure{absl::UnavailableError("bye"), 503, "service_unavailable"},
        Failure{absl::InternalError("/secret"), 500, "internal_error"}));

TEST_F(OpenAiEndpointsTest, InternalFaultsAreNotToldInDetail) {
  Start();
  FakeAnswer answer{.status = absl::DataLossError("/model/experts-1 is bad")};
  engine().SetScript([answer](const Request&) { return answer; });
  const ClientResponse response = Complete({{"prompt", "a"}});
  EXPECT_EQ(response.body.find("/model"), std::string::npos);
  EXPECT_EQ(response.headers.at("x-should-retry"), "false");
}

TEST_F(OpenAiEndpointsTest, RefusalsHaveTheirStatusAndRetryAfter) {
  Start();
  engine().RefuseWith(absl::ResourceExhaustedError("the queue is full"));
  const ClientResponse response = Complete({{"prompt", "a"}});
  EXPECT_EQ(response.status, 429);
  EXPECT_EQ(response.headers.at("retry-after"), "1");
  EXPECT_EQ(response.json()["error"]["message"], "the queue is full");
  engine().RefuseWith(absl::UnavailableError("draining"));
  EXPECT_EQ(Complete({{"prompt", "a"}}).headers.at("retry-after"), "5");
  engine().RefuseWith(absl::UnimplementedError("no jinja2"));
  EXPECT_EQ(Complete({{"prompt", "a"}}).status, 501);
}

TEST_F(OpenAiEndpointsTest, BadRequestsNameTheirFieldAndReachNoEngine) {
  Start();
  const auto param = [](const ClientResponse& response) {
    EXPECT_EQ(response.status, 400) << response.body;
    return response.json()["error"]["param"];
  };
  EXPECT_EQ(param(Complete({{"prompt", "a"}, {"temperature", -1}})),
            "temperature");
  EXPECT_EQ(param(Complete({{"prompt", {8192}}})), "prompt");
  EXPECT_EQ(param(Complete({{"prompt", "a"}, {"logprobs", 99}})), "logprobs");
  EXPECT_EQ(param(Chat({{"logprobs", true}, {"top_logprobs", 99}})),
            "top_logprobs");
  EXPECT_EQ(param(Chat({{"max_tokens", -5}})), "max_tokens");
  EXPECT_EQ(param(Chat({{"max_completion_tokens", -5}})),
            "max_completion_tokens");
  EXPECT_EQ(param(Complete({{"prompt", json::array({{7}, {8192}})}})),
            "prompt[1]");
  json chat = {{"messages", json::array()}};
  chat["messages"].push_back(
      {{"role", "user"}, {"content", std::string(20000, '.')}});
  EXPECT_EQ(param(client().Post("/v1/chat/completions", chat.dump())),
            "messages");
  EXPECT_EQ(param(client().Post("/v1/completions", "{")), nullptr);
  const ClientResponse model = Complete({{"prompt", "a"}, {"model", "gpt-9"}});
  EXPECT_EQ(model.status, 404);
  EXPECT_EQ(model.json()["error"]["code"], "model_not_found");
  EXPECT_EQ(model.json()["error"]["param"], "model");
  EXPECT_EQ(engine().accepted(), 0);
}

TEST_F(OpenAiEndpointsTest, PromptOverTheContextSaysSoInTheKnownWords) {
  Start();
  const ClientResponse response =
      Complete({{"prompt", std::vector<int>(4096, 7)}});
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.json()["error"]["code"], "context_length_exceeded");
  EXPECT_THAT(response.body,
              HasSubstr("This model's maximum context length is 4096 tokens"));
}

}  // namespace
}  // namespace bullpen
