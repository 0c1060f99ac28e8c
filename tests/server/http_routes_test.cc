#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/http_message.h"
#include "tests/server/http_fixture.h"

namespace bullpen {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class HttpRoutesTest : public HttpFixture {};

TEST(HttpMessageTest, PathHasNoHostAndNoQueryAndIsDecoded) {
  EXPECT_EQ(PathOf("/v1/models?x=1"), "/v1/models");
  EXPECT_EQ(PathOf("http://host:80/health"), "/health");
  EXPECT_EQ(PathOf("http://host"), "/");
  EXPECT_EQ(PathOf("/v1/models/a%2Fb"), "/v1/models/a/b");
  EXPECT_EQ(PathOf("/%zz"), "");
  EXPECT_EQ(PathOf("/%f"), "");
  EXPECT_EQ(PathOf("/%ff"), "");
}

TEST(HttpMessageTest, HeadsSuitTheVersionAndTheBody) {
  const std::string older =
      ResponseHead({}, {.version = 10, .body_bytes = 3, .request_id = "r"});
  EXPECT_THAT(older, StartsWith("HTTP/1.0 200 OK\r\n"));
  EXPECT_THAT(older, HasSubstr("\r\nContent-Length: 3\r\n"));
  EXPECT_THAT(older, HasSubstr("\r\nConnection: keep-alive\r\n"));
  const std::string none = ResponseHead({.status = 204}, {.request_id = "r"});
  EXPECT_THAT(none, StartsWith("HTTP/1.1 204 No Content\r\n"));
  EXPECT_THAT(none, Not(HasSubstr("Content-")));
  EXPECT_THAT(none, Not(HasSubstr("Connection")));
}

TEST(HttpMessageTest, RequestIdsOfClientsAreKeptOnlyIfSane) {
  EXPECT_EQ(RequestId("abc_DEF-9"), "abc_DEF-9");
  EXPECT_NE(RequestId("a b"), "a b");
  EXPECT_NE(RequestId("http://x"), "http://x");
  EXPECT_EQ(RequestId(std::string(65, 'a')).size(), 24u);
  EXPECT_NE(RequestId(""), RequestId(""));
}

TEST_F(HttpRoutesTest, LoadingServerIsAliveButNotReady) {
  StartLoading();
  EXPECT_EQ(client().Get("/health").status, 200);
  const ClientResponse ready = client().Get("/ready");
  EXPECT_EQ(ready.status, 503);
  EXPECT_TRUE(ready.headers.contains("retry-after"));
  EXPECT_THAT(ready.body, HasSubstr("loading"));
  const ClientResponse refused =
      client().Post("/v1/completions", R"({"prompt":"a"})");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.json()["error"]["code"], "service_unavailable");
  SetReady();
  EXPECT_EQ(client().Get("/ready").status, 200);
}

TEST_F(HttpRoutesTest, DrainingServerIsAliveButNotReady) {
  Start();
  service().SetDraining();
  EXPECT_EQ(client().Get("/health").status, 200);
  EXPECT_EQ(client().Get("/ready").status, 503);
  EXPECT_EQ(client().Post("/v1/completions", R"({"prompt":"a"})").status, 503);
}

TEST_F(HttpRoutesTest, EngineWithoutHeartbeatIsNotAlive) {
  Start();
  EXPECT_EQ(client().Get("/health").status, 200);
  engine().SetHeartbeatAge(1000);
  const ClientResponse health = client().Get("/health");
  EXPECT_EQ(health.status, 503);
  EXPECT_THAT(health.body, HasSubstr("1000"));
}

TEST_F(HttpRoutesTest, ModelsTellTheServedModel) {
  Start();
  const nlohmann::json list = client().Get("/v1/models").json();
  EXPECT_EQ(list["object"], "list");
  EXPECT_EQ(list["data"][0]["id"], "bullpen-default");
  EXPECT_EQ(list["data"][0]["max_model_len"], 4096);
  EXPECT_EQ(client().Get("/v1/models/bullpen-default").json()["object"],
            "model");
  const ClientResponse unknown = client().Get("/v1/models/other");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(unknown.json()["error"]["code"], "model_not_found");
}

TEST_F(HttpRoutesTest, UnknownPathsAndWrongMethodsAreErrors) {
  Start();
  const ClientResponse unknown = client().Get("/v1/nothing");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(unknown.json()["error"]["type"], "invalid_request_error");
  EXPECT_EQ(unknown.json()["error"]["param"], nullptr);
  const ClientResponse wrong = client().Get("/v1/completions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "POST, OPTIONS");
  EXPECT_EQ(client().Get("/%ff").status, 404);
  client().Send("OPTIONS /v1/models HTTP/1.1\r\nHost: a\r\n\r\n");
  const ClientResponse options = client().Receive();
  EXPECT_EQ(options.status, 204);
  EXPECT_EQ(options.headers.at("allow"), "GET, HEAD, OPTIONS");
}

TEST_F(HttpRoutesTest, OnlyJsonIsReadAsJson) {
  Start();
  Say("hi");
  client().Send(
      "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n"
      "Content-Length: 2\r\n\r\n{}");
  EXPECT_EQ(client().Receive().status, 415);
}

TEST_F(HttpRoutesTest, NoContentTypeWillDoButForWebPages) {
  Start();
  Say("hi");
  for (const auto& [origin, status] :
       {std::pair("", 200),
        std::pair("Origin: https://example.org\r\n", 415)}) {
    HttpClient guest(port());
    guest.Send(absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: a\r\n",
                            origin, "Content-Length: 14\r\n\r\n",
                            R"({"prompt":"a"})"));
    EXPECT_EQ(guest.Receive().status, status) << origin;
  }
}

TEST_F(HttpRoutesTest, KeysGuardAllButProbes) {
  config().api_keys = {"first-key", "second-key"};
  Start();
  EXPECT_EQ(client().Get("/health").status, 200);
  EXPECT_EQ(client().Get("/ready").status, 200);
  for (const char* path : {"/v1/models", "/metrics", "/version", "/v1/experts",
                           "/v1/models/x", "/nothing"}) {
    const ClientResponse refused = client().Get(path);
    EXPECT_EQ(refused.status, 401) << path;
    EXPECT_EQ(refused.json()["error"]["type"], "authentication_error");
    EXPECT_EQ(refused.headers.at("www-authenticate"), "Bearer");
  }
  EXPECT_EQ(
      client().Get("/v1/models", "Authorization: Bearer second-key\r\n").status,
      200);
  EXPECT_EQ(client().Get("/v1/models", "X-Api-Key: first-key\r\n").status, 200);
  EXPECT_EQ(
      client().Get("/v1/models", "Authorization: Bearer FIRST-KEY\r\n").status,
      401);
}

TEST_F(HttpRoutesTest, TokenizeAndDetokenizeSpeakBothDialects) {
  Start();
  const nlohmann::json ids = tokenizer().Encode("Hello world", false);
  const nlohmann::json llama =
      client().Post("/tokenize", R"({"content":"Hello world"})").json();
  EXPECT_EQ(llama["tokens"], ids);
  EXPECT_EQ(llama["count"], ids.size());
  const nlohmann::json vllm =
      client()
          .Post("/tokenize",
                R"({"model":"bullpen-default","prompt":"Hello world",
                    "add_special_tokens":false})")
          .json();
  EXPECT_EQ(vllm["tokens"], ids);
  const nlohmann::json text =
      client()
          .Post("/detokenize", nlohmann::json{{"tokens", ids}}.dump())
          .json();
  EXPECT_EQ(text["content"], "Hello world");
  EXPECT_EQ(text["prompt"], "Hello world");
  const ClientResponse unknown =
      client().Post("/detokenize", R"({"tokens":[8192]})");
  EXPECT_EQ(unknown.status, 400);
  EXPECT_EQ(unknown.json()["error"]["param"], "tokens");
  EXPECT_EQ(client().Post("/tokenize", "{}").status, 400);
  EXPECT_EQ(
      client().Post("/tokenize", R"({"content":"a","prompt":"a"})").status,
      400);
}

TEST_F(HttpRoutesTest, MetricsAreInPrometheusText) {
  Start();
  client().Get("/health");
  const ClientResponse metrics = client().Get("/metrics");
  EXPECT_EQ(metrics.status, 200);
  EXPECT_THAT(metrics.headers.at("content-type"),
              StartsWith("text/plain; version=0.0.4"));
  EXPECT_THAT(metrics.body, HasSubstr("# TYPE bullpen_http_connections gauge"));
  EXPECT_THAT(metrics.body,
              HasSubstr("bullpen_http_responses_total{code=\"200\"} 1"));
}

TEST_F(HttpRoutesTest, ExpertsAreASnapshotOfTheCache) {
  Start();
  const nlohmann::json experts = client().Get("/v1/experts").json();
  EXPECT_EQ(experts["arena_bytes"], 8192);
  EXPECT_EQ(experts["recent"]["belady"], 0);
  const nlohmann::json& layer = experts["layers"][0];
  EXPECT_EQ(layer["slots"], 4);
  EXPECT_EQ(layer["slot_bytes"], 2048);
  EXPECT_EQ(layer["hits"], 7);
  EXPECT_EQ(layer["resident"], 2);
  EXPECT_EQ(layer["resident_experts"], nlohmann::json({1, 5}));
  EXPECT_EQ(layer["scores"], nlohmann::json({2.5, 0.5}));
  EXPECT_EQ(layer["loading"], 1);
  EXPECT_EQ(layer["loading_experts"], nlohmann::json({3}));
}

TEST_F(HttpRoutesTest, VersionAndRequestIdAreTold) {
  config().version = "1.2.3";
  Start();
  const ClientResponse version =
      client().Get("/version", "x-request-id: mine-1\r\n");
  EXPECT_EQ(version.json()["version"], "1.2.3");
  EXPECT_EQ(version.headers.at("x-request-id"), "mine-1");
  EXPECT_EQ(client().Get("/version").headers.at("x-request-id").size(), 24u);
}

TEST_F(HttpRoutesTest, HeadHasNoBody) {
  Start();
  client().Send("HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n");
  ASSERT_TRUE(client().ReceiveUntil("\r\n\r\n"));
  client().Send(
      "HEAD /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  ASSERT_TRUE(client().ReceiveUntil("Connection: close\r\n\r\n"));
}

TEST_F(HttpRoutesTest, PortInUseIsAnErrorThatNamesIt) {
  Start();
  HttpConfig second;
  second.port = port();
  const auto server = HttpServer::Listen(service(), second);
  ASSERT_EQ(server.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(server.status().message()),
              HasSubstr("127.0.0.1:" + std::to_string(port())));
}

}  // namespace
}  // namespace bullpen
