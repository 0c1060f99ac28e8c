#include <array>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/read.hpp"
#include "boost/asio/write.hpp"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/grpc_fixture.h"

namespace bullpen {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(GrpcTest, WhileLoadingCallsAreUnavailable) {
  const Answer answer = Generate(Prompt("x"));
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(answer.status.error_message(), HasSubstr("loading"));
  grpc::ClientContext context;
  v1::TokenizeResponse response;
  EXPECT_EQ(stub_->Tokenize(&context, {}, &response).error_code(),
            grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GrpcTest, TokensArriveWithOneFinishAtTheEnd) {
  BecomeReady();
  Script({.tokens = TokensOf("a bird flew over"),
          .reason = FinishReason::kLength});
  v1::GenerateRequest request = Prompt("In the beginning");
  request.set_request_id("mine");
  request.mutable_sampling()->set_seed(5);
  const Answer answer = Generate(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.text, "a bird flew over");
  EXPECT_EQ(answer.finishes, 1);
  EXPECT_EQ(answer.last.request_id(), "mine");
  EXPECT_EQ(answer.last.finish().reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(answer.last.finish().usage().seed(), 5);
  EXPECT_EQ(answer.last.finish().usage().completion_tokens(),
            static_cast<int32_t>(answer.ids.size()));
}

TEST_F(GrpcTest, AStopStringEndsTheStreamAndTheWork) {
  BecomeReady();
  Script({.tokens = TokensOf("one two three four"), .endless = true});
  v1::GenerateRequest request = Prompt("x");
  request.add_stop("three");
  const Answer answer = Generate(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.text, "one two ");
  EXPECT_EQ(answer.last.finish().reason(), v1::FINISH_REASON_STOP);
  EXPECT_TRUE(engine_.AwaitIdle());
  EXPECT_EQ(engine_.cancelled(), 0);
}

TEST_F(GrpcTest, TextHeldForAStopStringComesWithTheEnd) {
  BecomeReady();
  Script({.tokens = TokensOf("a bird ST"), .reason = FinishReason::kLength});
  v1::GenerateRequest request = Prompt("x");
  request.add_stop("STOP");
  const Answer answer = Generate(request);
  EXPECT_EQ(answer.text, "a bird ST");
  EXPECT_EQ(answer.last.finish().reason(), v1::FINISH_REASON_LENGTH);
}

TEST_F(GrpcTest, AnErrorOfTheEngineComesAfterTheTokensBeforeIt) {
  BecomeReady();
  Script({.tokens = TokensOf("a bird"),
          .status = absl::DataLossError("expert 3 of layer 1 is damaged")});
  const Answer answer = Generate(Prompt("x"));
  EXPECT_EQ(answer.text, "a bird");
  EXPECT_EQ(answer.finishes, 0);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(answer.status.error_message(), "expert 3 of layer 1 is damaged");
}

TEST_F(GrpcTest, AFullQueueIsResourceExhausted) {
  BecomeReady();
  engine_.RefuseWith(absl::ResourceExhaustedError("the queue is full"));
  const Answer answer = Generate(Prompt("x"));
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(answer.status.error_message(), "the queue is full");
}

TEST_F(GrpcTest, BadFieldsAreNamed) {
  BecomeReady();
  v1::GenerateRequest request = Prompt("x");
  request.mutable_sampling()->set_top_p(7);
  Answer answer = Generate(request);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(answer.status.error_message(), HasSubstr("top_p"));
  answer = Generate({});
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(answer.status.error_message(), HasSubstr("prompt_ids"));
  request = Prompt("x");
  request.set_model("other");
  answer = Generate(request);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::NOT_FOUND);
  request = Prompt("x");
  request.set_request_id("two words");
  answer = Generate(request);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  request = Prompt("x");
  request.set_request_id(std::string(129, 'x'));
  answer = Generate(request);
  EXPECT_EQ(answer.status.error_message(),
            "request_id has 129 bytes, at most 128 are allowed");
  EXPECT_EQ(engine_.accepted(), 0);
  EXPECT_EQ(metrics_.requests_rejected_invalid.Value(), 5);
}

TEST_F(GrpcTest, EachFieldReachesTheEngine) {
  BecomeReady();
  Script({.tokens = TokensOf("hi")});
  v1::GenerateRequest request = Prompt("x");
  v1::SamplingParams& sampling = *request.mutable_sampling();
  sampling.set_temperature(0.5f);
  sampling.set_top_k(11);
  sampling.set_top_p(0.75f);
  sampling.set_min_p(0.25f);
  sampling.set_seed(5);
  sampling.set_repetition_penalty(1.5f);
  sampling.set_presence_penalty(0.125f);
  request.set_max_tokens(7);
  request.add_stop_token_ids(9);
  request.set_ignore_eos(true);
  request.set_logprobs(2);
  request.set_request_id(std::string(128, 'x'));
  ASSERT_TRUE(Generate(request).status.ok());
  const Request got = engine_.requests()[0];
  EXPECT_EQ(got.sampling.temperature, 0.5f);
  EXPECT_EQ(got.sampling.top_k, 11);
  EXPECT_EQ(got.sampling.top_p, 0.75f);
  EXPECT_EQ(got.sampling.min_p, 0.25f);
  EXPECT_EQ(got.sampling.seed, 5u);
  EXPECT_EQ(got.sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(got.sampling.presence_penalty, 0.125f);
  EXPECT_EQ(got.sampling.frequency_penalty, 0.0f);
  EXPECT_EQ(got.max_tokens, 7);
  EXPECT_THAT(got.stop_ids, ElementsAre(9));
  EXPECT_EQ(got.logprobs, 2);
  EXPECT_EQ(got.id, request.request_id());
  sampling.set_frequency_penalty(0.25f);
  request.set_ignore_eos(false);
  ASSERT_TRUE(Generate(request).status.ok());
  EXPECT_EQ(engine_.requests()[1].sampling.frequency_penalty, 0.25f);
  EXPECT_THAT(engine_.requests()[1].stop_ids, ElementsAre(9, 7));
}

TEST_F(GrpcTest, TokensHaveTheirLogprobs) {
  BecomeReady();
  std::vector<TokenEvent> tokens = TokensOf("x");
  const int32_t other = TokensOf("y")[0].id;
  tokens[0].logprob = -0.5f;
  tokens[0].top = {{.id = other, .logprob = -0.25f}};
  Script({.tokens = tokens, .hold = true});
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Prompt("x"));
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  ASSERT_EQ(response.tokens_size(), 1);
  const v1::Token& token = response.tokens(0);
  EXPECT_EQ(token.logprob(), -0.5f);
  ASSERT_EQ(token.top_logprobs_size(), 1);
  EXPECT_EQ(token.top_logprobs(0).id(), other);
  EXPECT_EQ(token.top_logprobs(0).token(), "y");
  EXPECT_EQ(token.top_logprobs(0).logprob(), -0.25f);
  context.TryCancel();
}

TEST_F(GrpcTest, TheModelIsDescribed) {
  BecomeReady();
  grpc::ClientContext context;
  v1::GetModelResponse model;
  ASSERT_TRUE(stub_->GetModel(&context, {}, &model).ok());
  EXPECT_EQ(model.id(), "default");
  EXPECT_EQ(model.architecture(), "qwen3_moe");
  EXPECT_EQ(model.context_length(), 4096);
  EXPECT_EQ(model.vocab_size(), service_.tokenizer().vocab_size());
  EXPECT_EQ(model.layers(), 2);
  EXPECT_EQ(model.experts(), 8);
  EXPECT_EQ(model.experts_per_token(), 3);
}

TEST_F(GrpcTest, ACancelledCallCancelsItsRequestOnly) {
  BecomeReady();
  Script({.tokens = TokensOf("on and on"), .endless = true});
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Prompt("x"));
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  context.TryCancel();
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(engine_.AwaitIdle());
  EXPECT_EQ(engine_.cancelled(), 1);
}

TEST_F(GrpcTest, TheClientsDeadlineReachesTheEngine) {
  BecomeReady();
  Script({.hold = true});
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(300));
  const Answer answer = Generate(Prompt("x"), context);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(engine_.AwaitIdle());
  for (const Request& request : engine_.requests()) {
    EXPECT_LT(*request.deadline, Clock::now() + std::chrono::seconds(1));
  }
}

// Whether a client that sends nothing but pings keeps its connection.
bool OutlivesPings(uint16_t port, int count) {
  using Frame = std::array<unsigned char, 9>;  // its header
  boost::asio::io_context context;
  boost::asio::ip::tcp::socket socket(context);
  socket.connect({boost::asio::ip::make_address("127.0.0.1"), port});
  const Frame settings = {0, 0, 0, 4};
  const std::array<unsigned char, 17> ping = {0, 0, 8, 6};
  boost::asio::write(
      socket, boost::asio::buffer("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24));
  boost::asio::write(socket, boost::asio::buffer(settings));
  boost::system::error_code error;
  for (int answers = 0; answers < count && !error;) {
    boost::asio::write(socket, boost::asio::buffer(ping), error);
    Frame frame = {};
    do {
      boost::asio::read(socket, boost::asio::buffer(frame), error);
      std::vector<char> payload(frame[0] << 16 | frame[1] << 8 | frame[2]);
      boost::asio::read(socket, boost::asio::buffer(payload), error);
      constexpr int kGoAway = 7;
      if (frame[3] == kGoAway) return false;
    } while (!error && (frame[3] != ping[3] || frame[4] == 0));
    ++answers;
  }
  return !error;
}

TEST_F(GrpcTest, PingsThatAreNotTooManyKeepAConnectionWithoutCalls) {
  Start({.min_ping_ms = 0});
  EXPECT_TRUE(OutlivesPings(server_->port(), 20));
  EXPECT_LT(GrpcConfig().min_ping_ms, 10'000) << "what clients set, often";
}

TEST_F(GrpcTest, AFloodOfPingsEndsItsConnection) {
  EXPECT_FALSE(OutlivesPings(server_->port(), 20));
}

TEST_F(GrpcTest, AChatIsRenderedWithoutAddedSpecialTokens) {
  BecomeReady();
  Script({.tokens = TokensOf("hi")});
  ASSERT_TRUE(Generate(Chat("Hello")).status.ok());
  EXPECT_EQ(engine_.requests()[0].prompt,
            service_.tokenizer().Encode("user: Hello\nassistant: ", false));
}

TEST_F(GrpcTest, AChatOfTooManyMessagesIsNotRendered) {
  BecomeReady();
  Script({.tokens = TokensOf("hi")});
  v1::GenerateRequest request;
  for (int i = 0; i < 1000; ++i) request.mutable_chat()->add_messages();
  const int64_t before = FakeRendering::begun();
  EXPECT_TRUE(Generate(request).status.ok());
  EXPECT_EQ(FakeRendering::begun(), before + 1);
  request.mutable_chat()->add_messages();
  const Answer answer = Generate(request);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(answer.status.error_message(),
            "chat has 1001 messages, at most 1000 are allowed");
  EXPECT_EQ(FakeRendering::begun(), before + 1);
  EXPECT_EQ(RequestLimits().max_messages, 16384);
}

TEST_F(GrpcTest, AChatThatItsTemplateRefusesIsInvalid) {
  BecomeReady();
  for (const absl::Status& status :
       {absl::ResourceExhaustedError("output exceeds 16 MiB"),
        absl::InvalidArgumentError("output exceeds 16 MiB")}) {
    FakeRendering::FailWith(status);
    const Answer answer = Generate(Chat("Hello"));
    EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(answer.status.error_message(), "output exceeds 16 MiB");
  }
  FakeRendering::FailWith(absl::DeadlineExceededError("took longer"));
  EXPECT_EQ(Generate(Chat("Hello")).status.error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(GrpcTest, AMessageOverTheLimitIsRefused) {
  BecomeReady();
  const Answer answer = Generate(Prompt(std::string(65 << 10, 'x')));
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(GrpcTest, WithoutAKeyCallsAreUnauthenticated) {
  Start({.api_keys = {"secret"}});
  BecomeReady();
  Script({.tokens = TokensOf("hi")});
  EXPECT_EQ(Generate(Prompt("x")).status.error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  grpc::ClientContext wrong;
  wrong.AddMetadata("authorization", "Bearer secreT");
  EXPECT_EQ(Generate(Prompt("x"), wrong).status.error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  grpc::ClientContext right;
  right.AddMetadata("authorization", "Bearer secret");
  EXPECT_TRUE(Generate(Prompt("x"), right).status.ok());
}

TEST_F(GrpcTest, TokenizeAndDetokenizeAreInverse) {
  BecomeReady();
  v1::TokenizeRequest request;
  request.set_text("a bird, naïve ☕");
  v1::TokenizeResponse tokens;
  grpc::ClientContext first;
  ASSERT_TRUE(stub_->Tokenize(&first, request, &tokens).ok());
  v1::DetokenizeRequest back;
  *back.mutable_ids() = tokens.ids();
  v1::DetokenizeResponse text;
  grpc::ClientContext second;
  ASSERT_TRUE(stub_->Detokenize(&second, back, &text).ok());
  EXPECT_EQ(text.text(), request.text());
  const int32_t special = *service_.tokenizer().IdOf("<|im_end|>");
  back.add_ids(special);
  back.set_skip_special_tokens(true);
  grpc::ClientContext skipped;
  ASSERT_TRUE(stub_->Detokenize(&skipped, back, &text).ok());
  EXPECT_EQ(text.text(), request.text());
  back.add_ids(1 << 30);
  grpc::ClientContext third;
  EXPECT_EQ(stub_->Detokenize(&third, back, &text).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(GrpcTest, TheCacheSnapshotIsGivenWhole) {
  BecomeReady();
  grpc::ClientContext context;
  v1::GetExpertCacheResponse response;
  ASSERT_TRUE(stub_->GetExpertCache(&context, {}, &response).ok());
  EXPECT_EQ(response.slot_bytes(), 8192);
  EXPECT_EQ(response.loads(), 3);
  EXPECT_EQ(response.load_failures(), 2);
  EXPECT_EQ(response.bytes_loaded(), 6144);
  EXPECT_EQ(response.stall_seconds(), 0.5);
  ASSERT_EQ(response.layers_size(), 1);
  EXPECT_EQ(response.layers(0).experts(), 8);
  EXPECT_EQ(response.layers(0).slots(), 4);
  EXPECT_EQ(response.layers(0).lookups(), 10);
  EXPECT_EQ(response.layers(0).hits(), 7);
  EXPECT_EQ(response.layers(0).resident(), 2);
  EXPECT_EQ(response.layers(0).loading(), 1);
  EXPECT_THAT(response.layers(0).resident_experts(), ElementsAre(1, 5));
}

TEST_F(GrpcTest, ManyClientsThatLeaveAtRandomLeaveNothingBehind) {
  BecomeReady();
  Script({.tokens = TokensOf("on and on and on"), .endless = true});
  constexpr int kThreads = 8;
  constexpr int kCallsPerThread = 10;
  std::vector<std::jthread> clients;
  for (int t = 0; t < kThreads; ++t) {
    clients.emplace_back([this, t] {
      for (int i = 0; i < kCallsPerThread; ++i) {
        grpc::ClientContext context;
        auto reader = stub_->Generate(&context, Prompt("x"));
        v1::GenerateResponse response;
        for (int reads = 0; reads < (t + i) % 4; ++reads) {
          reader->Read(&response);
        }
        context.TryCancel();
        reader->Finish();
      }
    });
  }
  clients.clear();
  EXPECT_TRUE(engine_.AwaitIdle());
}

TEST_F(GrpcTest, TwoServersCannotShareAPort) {
  const auto second =
      GrpcServer::Listen(service_, {.port = server_->port(), .api_keys = {}});
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr(std::to_string(server_->port())));
}

}  // namespace
}  // namespace bullpen
