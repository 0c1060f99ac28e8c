#include <random>
#include <thread>

#include "engine/engine.h"
#include "gtest/gtest.h"
#include "tests/engine/engine_fixture.h"

namespace bullpen {
namespace {

constexpr int kRequests = 200;
constexpr int kThreads = 4;

struct Client {
  Reader reader;
  int32_t cancel_after = -1;  // tokens; -1 = never
  bool accepted = false;
};

Request DrawRequest(std::mt19937_64& random) {
  const auto draw = [&random](int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random);
  };
  Request request = {.prompt = MakePrompt(draw(1, 120), draw(0, 50)),
                     .max_tokens = draw(0, 60),
                     .prompt_logprobs = draw(0, 3) == 0};
  request.sampling.seed = random();
  if (draw(0, 3) == 0) request.sampling.temperature = 0;
  if (draw(0, 4) == 0) request.logprobs = 2;
  if (draw(0, 9) == 0) request.prompt[0] = 61;  // poison
  if (draw(0, 9) == 0) request.deadline = Clock::now();
  return request;
}

void Play(EngineFixture& f, std::span<Client> clients, uint64_t seed) {
  std::mt19937_64 random(seed);
  for (Client& client : clients) {
    client.cancel_after = std::uniform_int_distribution<int32_t>(-8, 8)(random);
    const absl::Status status = f.Submit(DrawRequest(random), client.reader);
    client.accepted = status.ok();
    EXPECT_TRUE(status.ok() || absl::IsResourceExhausted(status)) << status;
    if (client.accepted && client.cancel_after == 0) {
      client.reader.stream()->Cancel();
    }
  }
  for (Client& client : clients) {
    if (!client.accepted || client.cancel_after <= 0) continue;
    client.reader.AwaitTokens(client.cancel_after);
    client.reader.stream()->Cancel();
  }
}

TEST(EngineStorm, EveryRequestEndsOnceAndAllGaugesReturn) {
  constexpr uint64_t kSeed = 20240601;
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  EngineFixture f(
      {.kv_groups = {{.window = 30, .blocks = 16}, {.blocks = 20}},
       .poison_token = 61},
      {.max_queue = 150, .max_sequences = 6, .max_batch_tokens = 48});
  std::vector<Client> clients(kRequests);
  {
    std::vector<std::jthread> threads;
    const int share = kRequests / kThreads;
    for (int t = 0; t < kThreads; ++t) {
      const std::span<Client> part(clients.data() + t * share, share);
      threads.emplace_back([&f, part, t] { Play(f, part, kSeed + t); });
    }
  }
  int accepted = 0;
  for (Client& client : clients) {
    if (!client.accepted) continue;
    ++accepted;
    const Finished& finished = client.reader.Wait();
    EXPECT_TRUE(finished.status.ok() ==
                (finished.reason != FinishReason::kError));
    EXPECT_EQ(client.reader.ids().size(),
              static_cast<size_t>(finished.completion_tokens));
  }
  EXPECT_TRUE(f.AtBaseLine());
  EXPECT_EQ(f.metrics.requests_accepted.Value(), accepted);
  EXPECT_EQ(f.metrics.finished_stop.Value() +
                f.metrics.finished_length.Value() +
                f.metrics.finished_cancelled.Value() +
                f.metrics.finished_deadline.Value() +
                f.metrics.finished_error.Value(),
            accepted);
  EXPECT_GT(f.metrics.finished_length.Value(), 0);
  EXPECT_GT(f.metrics.finished_error.Value(), 0);
  EXPECT_GT(f.metrics.finished_cancelled.Value(), 0);
  EXPECT_TRUE(f.engine.WaitDrained(Clock::now() + std::chrono::seconds(60)));
}

}  // namespace
}  // namespace bullpen
