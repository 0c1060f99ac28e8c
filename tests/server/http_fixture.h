#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/http_server.h"
#include "server/service.h"
#include "tests/fakes/fake_engine.h"
#include "tests/server/http_client.h"

namespace bullpen {

// A server on a free port of loopback, before a fake engine and the default
// model's tokenizer.
class HttpFixture : public ::testing::Test {
 protected:
  HttpFixture() { config_.port = 0; }
  ~HttpFixture() override;

  // Both before Start.
  HttpConfig& config() { return config_; }
  RequestLimits& limits() { return limits_; }

  void Start();         // with the model ready
  void StartLoading();  // without
  void SetReady();

  // The engine answers every request with the tokens of `text`.
  void Say(const std::string& text,
           FinishReason reason = FinishReason::kLength);
  FakeAnswer Tokens(const std::string& text) const;
  const Tokenizer& tokenizer() const { return *tokenizer_; }

  FakeEngineControl& engine() { return engine_; }
  Service& service() { return *service_; }
  HttpServer& server() { return *server_; }
  HttpClient& client();  // one kept-alive connection
  uint16_t port() const { return server_->port(); }

 private:
  HttpConfig config_;
  RequestLimits limits_;
  FakeEngineControl engine_;
  Metrics metrics_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<HttpServer> server_;
  std::unique_ptr<HttpClient> client_;
};

}  // namespace bullpen
