#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bullpen/v1/inference.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "server/grpc_server.h"
#include "server/service.h"
#include "tests/fakes/fake_chat_template.h"
#include "tests/fakes/fake_engine.h"

namespace bullpen {

// What a client saw of one call.
struct Answer {
  grpc::Status status;
  std::string text;
  std::vector<int32_t> ids;
  int finishes = 0;
  v1::GenerateResponse last;
};

class GrpcTest : public ::testing::Test {
 protected:
  GrpcTest() : service_(Limits(), metrics_) {}

  void SetUp() override { Start({}); }

  void TearDown() override {
    FakeRendering::Release();
    FakeRendering::FailWith(absl::OkStatus());
    if (service_.state() != Service::State::kLoading) service_.engine().Stop();
    stub_ = nullptr;
    server_ = nullptr;
  }

  static RequestLimits Limits() {
    RequestLimits limits;
    limits.max_body_bytes = 64 << 10;
    limits.max_messages = 1000;
    return limits;
  }

  void Start(GrpcConfig config) {
    stub_ = nullptr;
    server_ = nullptr;
    config.port = 0;
    auto server = GrpcServer::Listen(service_, config);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = v1::Inference::NewStub(
        grpc::CreateChannel("127.0.0.1:" + std::to_string(server_->port()),
                            grpc::InsecureChannelCredentials()));
  }

  void BecomeReady() {
    std::unique_ptr<Tokenizer> tokenizer =
        *Tokenizer::FromDirectory("models/default");
    ModelFacts facts;
    facts.id = "default";
    facts.architecture = "qwen3_moe";
    facts.layers = 2;
    facts.experts = 8;
    facts.experts_per_token = 3;
    facts.vocab = tokenizer->vocab_size();
    facts.context = 4096;
    facts.generation.eos_ids = {7};
    service_.SetReady(MakeFakeEngine(engine_, metrics_), std::move(tokenizer),
                      *ChatTemplate::FromDirectory("", {}), std::move(facts));
  }

  void Script(FakeAnswer answer) {
    engine_.SetScript([answer](const Request&) { return answer; });
  }

  std::vector<TokenEvent> TokensOf(const std::string& text) {
    std::vector<TokenEvent> events;
    for (const int32_t id : service_.tokenizer().Encode(text, false)) {
      events.push_back({.id = id});
    }
    return events;
  }

  Answer Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(20));
    return Generate(request, context);
  }

  Answer Generate(const v1::GenerateRequest& request,
                  grpc::ClientContext& context) {
    Answer answer;
    auto reader = stub_->Generate(&context, request);
    while (reader->Read(&answer.last)) {
      answer.text += answer.last.text();
      for (const v1::Token& token : answer.last.tokens()) {
        answer.ids.push_back(token.id());
      }
      answer.finishes += answer.last.has_finish() ? 1 : 0;
    }
    answer.status = reader->Finish();
    return answer;
  }

  static v1::GenerateRequest Prompt(const std::string& text) {
    v1::GenerateRequest request;
    request.set_prompt(text);
    return request;
  }

  static v1::GenerateRequest Chat(const std::string& content) {
    v1::GenerateRequest request;
    v1::ChatMessage& message = *request.mutable_chat()->add_messages();
    message.set_role("user");
    message.set_content(content);
    return request;
  }

  Metrics metrics_;
  FakeEngineControl engine_;
  Service service_;
  std::unique_ptr<GrpcServer> server_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

}  // namespace bullpen
