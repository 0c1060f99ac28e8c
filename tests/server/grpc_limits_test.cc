#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/grpc_budget.h"
#include "tests/server/grpc_fixture.h"

namespace bullpen {
namespace {

using ::testing::HasSubstr;

// What clients may not take from one another.
class GrpcLimitsTest : public GrpcTest {
 protected:
  grpc::Status TokenizeText(const std::string& text) {
    v1::TokenizeRequest request;
    request.set_text(text);
    v1::TokenizeResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(5));
    return stub_->Tokenize(&context, request, &response);
  }

  // Calls whose rendering keeps both workers until Release.
  std::vector<std::jthread> HoldWorkers() {
    FakeRendering::Hold();
    std::vector<std::jthread> calls;
    for (int i = 0; i < 2; ++i) {
      calls.emplace_back(
          [this] { EXPECT_TRUE(Generate(Chat("held")).status.ok()); });
    }
    EXPECT_TRUE(FakeRendering::AwaitHeld(2));
    return calls;
  }

  // By its answers the server has seen what this client did before: they share
  // a connection. Some more of them give its threads the time to look.
  void AwaitHeard() {
    for (int i = 0; i < 30; ++i) {
      grpc::ClientContext context;
      v1::GetModelResponse response;
      ASSERT_TRUE(stub_->GetModel(&context, {}, &response).ok());
    }
  }
};

TEST_F(GrpcLimitsTest, ACallThatIsNotAwaitedAnyMoreIsNotPrepared) {
  BecomeReady();
  Script({.tokens = TokensOf("hi")});
  const int64_t before = FakeRendering::begun();
  const std::vector<std::jthread> held = HoldWorkers();
  grpc::ClientContext late;
  late.set_deadline(std::chrono::system_clock::now() +
                    std::chrono::milliseconds(300));
  EXPECT_EQ(Generate(Chat("late"), late).status.error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  grpc::ClientContext gone;
  auto reader = stub_->Generate(&gone, Chat("gone"));
  AwaitHeard();
  gone.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  AwaitHeard();
  FakeRendering::Release();
  EXPECT_TRUE(Generate(Chat("here")).status.ok());
  EXPECT_EQ(FakeRendering::begun(), before + 3);
}

TEST_F(GrpcLimitsTest, RequestsThatWaitTakeNoMoreMemoryThanTheLimit) {
  Start({.max_request_bytes = 40'000});
  BecomeReady();
  Script({.tokens = TokensOf("hi")});
  const std::vector<std::jthread> held = HoldWorkers();
  const std::string text(50'000, 'x');
  const grpc::Status status = TokenizeText(text);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("40000, the limit"));
  EXPECT_EQ(Generate(Prompt(text)).status.error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  FakeRendering::Release();
}

TEST_F(GrpcLimitsTest, ARequestAloneIsTakenWhateverTheLimit) {
  Start({.max_request_bytes = 1});
  BecomeReady();
  EXPECT_TRUE(TokenizeText("a bird").ok());
}

TEST_F(GrpcLimitsTest, ARunningCallKeepsNoneOfTheRequestsMemory) {
  Start({.max_request_bytes = 1});
  BecomeReady();
  Script({.hold = true});
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Prompt("x"));
  ASSERT_TRUE(engine_.AwaitAccepted(1));
  EXPECT_TRUE(TokenizeText("a bird").ok());
  context.TryCancel();
}

TEST_F(GrpcLimitsTest, CallsOfAllKindsAreCounted) {
  Start({.max_calls = 1});
  BecomeReady();
  Script({.hold = true});
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Prompt("x"));
  ASSERT_TRUE(engine_.AwaitAccepted(1));
  const grpc::Status status = TokenizeText("a bird");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "more than 1 calls are under way");
  context.TryCancel();
}

TEST_F(GrpcLimitsTest, ACallThatTheEngineRefusedGivesItsPlaceBack) {
  Start({.max_calls = 1});
  BecomeReady();
  Script({.tokens = TokensOf("hi")});
  engine_.RefuseWith(absl::ResourceExhaustedError("the queue is full"));
  EXPECT_EQ(Generate(Prompt("x")).status.error_message(), "the queue is full");
  engine_.RefuseWith(absl::OkStatus());
  // Soon after the client has its answer.
  const Clock::time_point end = Clock::now() + std::chrono::seconds(10);
  bool taken = false;
  while (!taken && Clock::now() < end) {
    taken = Generate(Prompt("x")).status.ok();
  }
  EXPECT_TRUE(taken);
}

TEST(CallBudget, TakesBackEachPlaceAndEachByteOnce) {
  CallBudget budget(2, 100);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(budget.Take(60).ok());
  {
    absl::StatusOr<CallBudget::Share> share = budget.Take(60);
    ASSERT_TRUE(share.ok());
    share->GiveBytesBack();
  }
  const absl::StatusOr<CallBudget::Share> first = budget.Take(60);
  EXPECT_FALSE(budget.Take(41).ok());
  const absl::StatusOr<CallBudget::Share> second = budget.Take(40);
  EXPECT_TRUE(second.ok());
  EXPECT_FALSE(budget.Take(0).ok());
}

TEST_F(GrpcLimitsTest, ACallWhoseClientDoesNotReadIsCancelled) {
  Start({.max_calls = 1, .write_seconds = 0.2});
  BecomeReady();
  // Large ones, to fill what gRPC holds for a client.
  std::vector<TokenEvent> tokens = TokensOf("on and on");
  for (TokenEvent& token : tokens) token.top.resize(1000);
  Script({.tokens = tokens, .endless = true});
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Prompt("x"));
  ASSERT_TRUE(engine_.AwaitAccepted(1));
  ASSERT_TRUE(engine_.AwaitIdle());
  EXPECT_EQ(engine_.cancelled(), 1);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(GrpcLimitsTest, ACallIsNotCancelledWhileItsEngineIsSlow) {
  Start({.write_seconds = 0.2});
  BecomeReady();
  Script({.tokens = TokensOf("a bird flew over"), .hold = true});
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(600));
  const Answer answer = Generate(Prompt("x"), context);
  EXPECT_EQ(answer.text, "a bird flew over");
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED)
      << "no write is pending while the engine has nothing";
}

}  // namespace
}  // namespace bullpen
