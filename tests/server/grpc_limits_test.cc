#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/server/grpc_fixture.h"

namespace bullpen {
namespace {

// What clients may not take from one another.
class GrpcLimitsTest : public GrpcTest {
 protected:
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

}  // namespace
}  // namespace bullpen
