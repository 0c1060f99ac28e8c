#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/strings.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/http_fixture.h"

namespace bullpen {
namespace {

using ::testing::HasSubstr;

constexpr char kStream[] = R"({"prompt":"a","stream":true,"max_tokens":4000})";

class HttpSessionTest : public HttpFixture {
 protected:
  void SayForever() {
    FakeAnswer answer = Tokens("word after word ");
    answer.endless = true;
    engine().SetScript([answer](const Request&) { return answer; });
  }
  void SayNothing() {
    engine().SetScript([](const Request&) { return FakeAnswer{.hold = true}; });
  }
};

TEST_F(HttpSessionTest, ConnectionServesManyRequests) {
  Start();
  Say("hello");
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(client().Post("/v1/completions", R"({"prompt":"a"})").status,
              200);
    EXPECT_EQ(client()
                  .Post("/v1/completions", R"({"prompt":"a","stream":true})")
                  .events()
                  .back(),
              "[DONE]");
  }
}

TEST_F(HttpSessionTest, PipelinedRequestsAreAnsweredInOrder) {
  Start();
  Say("hello");
  std::string requests;
  for (int i = 0; i < 5; ++i) {
    requests += PostText(
        "/v1/completions",
        i % 2 == 0 ? R"({"prompt":"a"})" : R"({"prompt":"a","stream":true})",
        absl::StrCat("x-request-id: number-", i, "\r\n"));
  }
  client().Send(requests);
  for (int i = 0; i < 5; ++i) {
    const ClientResponse response = client().Receive();
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.headers.at("x-request-id"), absl::StrCat("number-", i));
  }
}

TEST_F(HttpSessionTest, ConnectionCloseIsHonoured) {
  Start();
  EXPECT_EQ(client().Get("/health", "Connection: close\r\n").status, 200);
  EXPECT_TRUE(client().ReceiveEnd());
}

TEST_F(HttpSessionTest, Http10StreamEndsWithTheConnection) {
  Start();
  Say("hello");
  client().Send(absl::StrCat(
      "POST /v1/completions HTTP/1.0\r\nContent-Length: ", sizeof(kStream) - 1,
      "\r\n\r\n", kStream));
  const ClientResponse response = client().Receive();
  EXPECT_FALSE(response.headers.contains("transfer-encoding"));
  EXPECT_EQ(response.events().back(), "[DONE]");
}

TEST_F(HttpSessionTest, BodyOverTheLimitIs413) {
  limits().max_body_bytes = 1000;
  Start();
  client().Send(
      "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: "
      "1001\r\n\r\n");
  const ClientResponse response = client().Receive();
  EXPECT_EQ(response.status, 413);
  EXPECT_THAT(response.body, HasSubstr("1000 bytes"));
  EXPECT_TRUE(client().ReceiveEnd());
}

TEST_F(HttpSessionTest, ChunkedBodyOverTheLimitIs413) {
  limits().max_body_bytes = 1000;
  Start();
  client().Send(
      "POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
      "Transfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 3; ++i) {
    client().Send("190\r\n" + std::string(400, ' ') + "\r\n");
  }
  EXPECT_EQ(client().Receive().status, 413);
}

TEST_F(HttpSessionTest, ChunkedBodyIsRead) {
  Start();
  Say("hello");
  client().Send(
      "POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
      "Transfer-Encoding: chunked\r\n\r\n"
      "8\r\n{\"prompt\r\n6\r\n\":\"a\"}\r\n0\r\n\r\n");
  EXPECT_EQ(client().Receive().status, 200);
}

TEST_F(HttpSessionTest, BadChunkSizeIs400) {
  Start();
  client().Send(
      "POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
      "Transfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n");
  EXPECT_EQ(client().Receive().status, 400);
}

// Two readings of where a body ends would let one request hide another.
TEST_F(HttpSessionTest, AmbiguousBodyLengthIs400) {
  Start();
  for (const char* fields :
       {"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n", "Content-Length: -5\r\n",
        "Content-Length: 99999999999999999999\r\n"}) {
    HttpClient guest(port());
    guest.Send(absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: a\r\n",
                            fields, "\r\n0\r\n\r\n"));
    EXPECT_EQ(guest.Receive().status, 400) << fields;
  }
}

TEST_F(HttpSessionTest, SurvivesDamagedRequests) {
  Start();
  Say("hello");
  constexpr unsigned kSeed = 20260611;
  SCOPED_TRACE(absl::StrCat("seed ", kSeed));
  std::mt19937 random(kSeed);
  const std::string whole = PostText(
      "/v1/completions", R"({"prompt":"a","stop":["b"],"stream":true})",
      "X-Request-Id: a\r\nConnection: keep-alive\r\n");
  for (int i = 0; i < 300; ++i) {
    std::string damaged = whole;
    for (unsigned k = 0; k < 1 + random() % 4; ++k) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    if (random() % 4 == 0) damaged.resize(random() % damaged.size());
    HttpClient guest(port());
    guest.Send(damaged);
  }
  EXPECT_EQ(client().Get("/health").status, 200);
  server().Shutdown(Clock::now() + std::chrono::seconds(20));
  EXPECT_TRUE(engine().AwaitIdle());
}

TEST_F(HttpSessionTest, HeaderOverTheLimitIs431) {
  Start();
  client().Send("GET /health HTTP/1.1\r\nHost: a\r\nX-Long: " +
                std::string(20 << 10, 'x') + "\r\n\r\n");
  EXPECT_EQ(client().Receive().status, 431);
}

TEST_F(HttpSessionTest, NonsenseIs400) {
  Start();
  client().Send("what is this\r\n\r\n");
  const ClientResponse response = client().Receive();
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.json()["error"]["type"], "invalid_request_error");
}

TEST_F(HttpSessionTest, ExpectContinueGetsItsGoAhead) {
  Start();
  Say("hello");
  client().Send(
      "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n"
      "Expect: 100-continue\r\n\r\n");
  EXPECT_EQ(client().Receive().status, 100);
  client().Send(R"({"prompt":"a"})");
  EXPECT_EQ(client().Receive().status, 200);
}

TEST_F(HttpSessionTest, SlowHeaderIsCutOff) {
  config().read_seconds = 0.2;
  Start();
  client().Send("GET /health HTTP/1.1\r\nHost:");
  EXPECT_TRUE(client().ReceiveEnd());
}

TEST_F(HttpSessionTest, SlowBodyIsCutOff) {
  config().read_seconds = 0.2;
  Start();
  client().Send(
      "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: "
      "50\r\n\r\n{");
  EXPECT_TRUE(client().ReceiveEnd());
}

TEST_F(HttpSessionTest, IdleConnectionIsClosed) {
  config().idle_seconds = 0.2;
  Start();
  EXPECT_EQ(client().Get("/health").status, 200);
  EXPECT_TRUE(client().ReceiveEnd());
}

TEST_F(HttpSessionTest, ConnectionsOverTheLimitAreToldSo) {
  config().max_connections = 1;
  Start();
  EXPECT_EQ(client().Get("/health").status, 200);
  HttpClient second(port());
  const ClientResponse refused = second.Get("/v1/models");
  EXPECT_EQ(refused.status, 503);
  EXPECT_TRUE(refused.headers.contains("retry-after"));
  EXPECT_TRUE(second.ReceiveEnd());
  EXPECT_EQ(client().Get("/health").status, 200);
}

TEST_F(HttpSessionTest, ProbesAreAnsweredOverTheLimitOfConnections) {
  config().max_connections = 1;
  Start();
  EXPECT_EQ(client().Get("/health").status, 200);
  for (const char* probe : {"/health", "/ready", "/metrics"}) {
    HttpClient kubelet(port());
    EXPECT_EQ(kubelet.Get(probe).status, 200) << probe;
    EXPECT_TRUE(kubelet.ReceiveEnd());
  }
}

TEST_F(HttpSessionTest, BodiesTogetherHaveALimit) {
  config().max_bodies_bytes = 3000;
  limits().max_body_bytes = 2000;
  Start();
  Say("hello");
  const std::string head =
      "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: "
      "2000\r\n\r\n";
  const std::string text(1986, 'a');
  const std::string body = R"({"prompt":")" + text + R"("} )";
  ASSERT_EQ(body.size(), 2000u);
  HttpClient first(port());
  first.Send(head + body.substr(0, 1900));
  EXPECT_EQ(client().Get("/health").status, 200);  // the server has read it
  HttpClient second(port());
  second.Send(head + body.substr(0, 1900));
  const ClientResponse refused = second.Receive();
  EXPECT_EQ(refused.status, 503);
  EXPECT_TRUE(refused.headers.contains("retry-after"));
  first.Send(body.substr(1900));
  EXPECT_EQ(first.Receive().status, 200);
  for (int i = 0; i < 3; ++i) {  // Nothing of it stays booked.
    EXPECT_EQ(client().Post("/v1/completions", body).status, 200);
  }
}

TEST_F(HttpSessionTest, ALineEndBehindABodyIsSkipped) {
  Start();
  Say("hello");
  const std::string request = PostText("/v1/completions", R"({"prompt":"a"})");
  client().Send(request + "\r\n" + request + "\r\n\r\n");
  EXPECT_EQ(client().Receive().status, 200);
  EXPECT_EQ(client().Receive().status, 200);
  EXPECT_EQ(client().Get("/health").status, 200);
}

TEST_F(HttpSessionTest, AnswersHaveADate) {
  Start();
  EXPECT_THAT(
      client().Get("/health").headers.at("date"),
      ::testing::MatchesRegex("[A-Z][a-z][a-z], [0-9][0-9] [A-Z][a-z][a-z] "
                              "20[0-9][0-9] [0-9:]+ GMT"));
}

TEST_F(HttpSessionTest, ThereIsOneHost) {
  Start();
  for (const char* hosts : {"", "Host: a\r\nHost: b\r\n"}) {
    HttpClient guest(port());
    guest.Send(absl::StrCat("GET /health HTTP/1.1\r\n", hosts, "\r\n"));
    EXPECT_EQ(guest.Receive().status, 400) << hosts;
    EXPECT_TRUE(guest.ReceiveEnd());
  }
}

// What stands behind it would be taken for the next request.
TEST_F(HttpSessionTest, BodyInACodingThatNobodyKnowsIs400) {
  Start();
  for (const char* coding : {"gzip", "xchunked", "identity", "chunked, gzip",
                             "gzip, chunked", "chunked, chunked"}) {
    for (const char* length : {"", "Content-Length: 5\r\n"}) {
      HttpClient guest(port());
      guest.Send(absl::StrCat("POST /tokenize HTTP/1.1\r\nHost: a\r\n", length,
                              "Transfer-Encoding: ", coding, "\r\n\r\n",
                              "GET /version HTTP/1.1\r\nHost: a\r\n\r\n"));
      EXPECT_EQ(guest.Receive().status, 400) << coding;
      EXPECT_TRUE(guest.ReceiveEnd()) << coding;
    }
  }
}

TEST_F(HttpSessionTest, HangUpInMidStreamCancels) {
  Start();
  SayForever();
  client().Send(PostText("/v1/completions", kStream));
  ASSERT_TRUE(client().ReceiveUntil("word"));
  client().Close();
  EXPECT_TRUE(engine().AwaitIdle());
  EXPECT_EQ(engine().cancelled(), 1);
}

TEST_F(HttpSessionTest, HangUpBeforeAnyTokenCancels) {
  Start();
  SayNothing();
  for (const char* body :
       {kStream, R"({"prompt":"a"})", R"({"prompt":"a","n":3})"}) {
    HttpClient guest(port());
    const int64_t before = engine().accepted();
    guest.Send(PostText("/v1/completions", body));
    ASSERT_TRUE(engine().AwaitAccepted(before + 1));
    guest.Close();
    EXPECT_TRUE(engine().AwaitIdle());
  }
  EXPECT_EQ(engine().cancelled(), 5);
}

TEST_F(HttpSessionTest, SlowReaderIsCancelledAndHoldsUpNobody) {
  config().write_seconds = 0.3;
  Start();
  FakeAnswer answer = Tokens(std::string(2000, '!') + " much text ");
  answer.endless = true;
  engine().SetScript([answer](const Request&) { return answer; });
  HttpClient slow(port(), /*receive_buffer_bytes=*/4096);
  slow.Send(PostText("/v1/completions",
                     R"({"prompt":"a","stream":true,"n":8,"max_tokens":4000,
                         "logprobs":0})"));
  ASSERT_TRUE(engine().AwaitAccepted(8));
  EXPECT_EQ(client().Get("/health").status, 200);
  EXPECT_TRUE(engine().AwaitIdle());
  EXPECT_EQ(engine().cancelled(), 8);
}

TEST_F(HttpSessionTest, SilentStreamIsKeptAliveByComments) {
  config().ping_seconds = 0.05;
  Start();
  SayNothing();
  client().Send(PostText("/v1/chat/completions",
                         R"({"messages":[{"role":"user","content":"a"}],
                             "stream":true})"));
  EXPECT_TRUE(client().ReceiveUntil("assistant"));
  EXPECT_TRUE(client().ReceiveUntil("\n: "));
}

TEST_F(HttpSessionTest, FailureOfOneChoiceCancelsTheOthers) {
  Start();
  engine().SetScript([](const Request& request) {
    if (request.sampling.seed == 6) {
      return FakeAnswer{.status = absl::DataLossError("gone")};
    }
    return FakeAnswer{.hold = true};
  });
  EXPECT_EQ(client()
                .Post("/v1/completions", R"({"prompt":"a","n":3,"seed":5})")
                .status,
            500);
  EXPECT_TRUE(engine().AwaitIdle());
  EXPECT_EQ(engine().cancelled(), 2);
}

TEST_F(HttpSessionTest, StormOfHangUpsLeavesNothingBehind) {
  config().threads = 2;
  Start();
  SayForever();
  for (int round = 0; round < 5; ++round) {
    std::vector<std::unique_ptr<HttpClient>> guests;
    for (int i = 0; i < 20; ++i) {
      guests.push_back(std::make_unique<HttpClient>(port()));
      guests.back()->Send(PostText("/v1/completions", kStream));
      if (i % 3 == 0) guests.back()->ReceiveUntil("word");
    }
  }
  Say("hello");
  EXPECT_EQ(client().Post("/v1/completions", R"({"prompt":"a"})").status, 200);
  server().Shutdown(Clock::now() + std::chrono::seconds(20));
  EXPECT_TRUE(engine().AwaitIdle());
  EXPECT_EQ(service().metrics().http_connections.Value(), 0);
}

TEST_F(HttpSessionTest, ShutdownClosesIdleConnectionsAtOnce) {
  Start();
  EXPECT_EQ(client().Get("/health").status, 200);
  server().Shutdown(Clock::now() + std::chrono::hours(1));
  EXPECT_TRUE(client().ReceiveEnd());
}

TEST_F(HttpSessionTest, ShutdownCutsWhatIsLeftAtItsDeadline) {
  Start();
  SayNothing();
  client().Send(PostText("/v1/completions", kStream));
  ASSERT_TRUE(engine().AwaitAccepted(1));
  server().Shutdown(Clock::now() + std::chrono::milliseconds(100));
  EXPECT_TRUE(engine().AwaitIdle());
  EXPECT_EQ(engine().cancelled(), 1);
}

TEST_F(HttpSessionTest, ShutdownLetsAStreamFinish) {
  Start();
  FakeAnswer answer = Tokens(std::string(300, '!') + "the end");
  engine().SetScript([answer](const Request&) { return answer; });
  client().Send(PostText("/v1/completions", kStream));
  ASSERT_TRUE(engine().AwaitAccepted(1));
  server().Shutdown(Clock::now() + std::chrono::seconds(20));
  const ClientResponse response = client().Receive();
  ASSERT_FALSE(response.events().empty());
  EXPECT_EQ(response.events().back(), "[DONE]");
  EXPECT_EQ(engine().cancelled(), 0);
}

}  // namespace
}  // namespace bullpen
