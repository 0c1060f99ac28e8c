// Replays in virtual time: what moves over the link, and what steps take.

#include "engine/experts/replay.h"
#include "engine/experts/trace_file.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

RoutingTrace Recorded() {
  auto trace = ReadTrace("tests/golden/traces/qwen3-30b-a3b.12-layers.csv");
  EXPECT_TRUE(trace.ok()) << trace.status();
  return *std::move(trace);
}

ReplayConfig OracleOver(double bytes_per_second) {
  return {.slots_per_layer = 24,
          .phase = Phase::kDecode,
          .guesser = GuesserKind::kOracle,
          .oracle_recall = 0.5,
          .link_bytes_per_second = bytes_per_second,
          .layer_seconds = 1e-3};
}

TEST(ReplayTime, APromptTakesTheTimeOfItsTokensAndLoadsNothingAhead) {
  RoutingTrace trace(/*experts=*/4, {100, 100});
  const auto add = [&](int32_t turn, int32_t step, int32_t expert) {
    for (const int32_t layer : {0, 1}) {
      const absl::Status added = trace.Add({.turn = turn,
                                            .phase = Phase::kPrefill,
                                            .step = step,
                                            .layer = layer},
                                           {{expert}}, {{1.0f}});
      ASSERT_TRUE(added.ok()) << added;
    }
  };
  for (int32_t step = 0; step < 3; ++step) add(0, step, step);
  add(1, 0, 3);
  const ReplayReport report = Replay(trace, {.slots_per_layer = 4,
                                             .guesser = GuesserKind::kOracle,
                                             .layer_seconds = 2,
                                             .prompt_row_seconds = 1});
  // Three tokens, and one that takes no less than one of an answer.
  EXPECT_NEAR(report.compute_seconds, 2 * 3 + 2 * 2, 1e-9);
  EXPECT_EQ(report.prefetched + report.prefetched_late, 0);
}

TEST(ReplayTime, BytesAreThoseThatTheLinkMoved) {
  const RoutingTrace trace = Recorded();
  for (const double rate : {1e8, 4e9, 1e11}) {
    const ReplayReport report = Replay(trace, OracleOver(rate));
    const double bytes = static_cast<double>(report.bytes());
    EXPECT_NEAR(report.link_busy_seconds * rate, bytes, 1e-6 * bytes);
  }
}

// Where the link has no time for them, all that is left of guesses is dropped
// when their layer wants others, and what was wanted is demanded.
TEST(ReplayTime, GuessesThatCameToNothingAreNoLoads) {
  const ReplayReport report = Replay(Recorded(), OracleOver(1e8));
  EXPECT_GT(report.prefetched_late, 0);
  EXPECT_GT(report.bytes_prefetch_wasted, 0);
  EXPECT_LT(report.bytes_prefetch_wasted, report.bytes() / 100);
  EXPECT_EQ(report.loads,
            report.missed + report.prefetched + report.prefetched_late);
}

}  // namespace
}  // namespace bullpen
