#include "engine/experts/replay.h"

#include <algorithm>
#include <random>
#include <string>

#include "base/check.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kHead[] =
    "# route_trace v1\n"
    "# model=small n_layer=2 n_expert=4 n_expert_used=2\n"
    "# layer=0 expert_bytes=100\n"
    "# layer=1 expert_bytes=10\n"
    "turn,phase,step,layer,slot,expert,weight\n";

RoutingTrace Parse(const std::string& rows) {
  auto trace = RoutingTrace::ParseCsv(kHead + rows);
  EXPECT_TRUE(trace.ok()) << trace.status();
  return *std::move(trace);
}

RoutingTrace Recorded() {
  const auto text =
      ReadFile("tests/golden/traces/qwen3-30b-a3b.12-layers.csv", 1 << 20);
  EXPECT_TRUE(text.ok()) << text.status();
  auto trace = RoutingTrace::ParseCsv(*text);
  EXPECT_TRUE(trace.ok()) << trace.status();
  return *std::move(trace);
}

TEST(RoutingTrace, ReadsHeaderAndRows) {
  const RoutingTrace trace = Parse(
      "0,0,0,0,0,3,0.75\r\n"
      "0,0,0,0,1,1,0.25\r\n"
      "0,1,5,1,0,2,1,0,999\n");
  EXPECT_EQ(trace.layers(), 2);
  EXPECT_EQ(trace.experts(), 4);
  EXPECT_EQ(trace.top_k(), 2);
  EXPECT_EQ(trace.expert_bytes(1), 10);
  ASSERT_EQ(trace.choices().size(), 2u);
  EXPECT_THAT(trace.chosen(trace.choices()[0]), ElementsAre(3, 1));
  EXPECT_THAT(trace.weights(trace.choices()[0]), ElementsAre(0.75f, 0.25f));
  EXPECT_EQ(trace.choices()[0].phase, Phase::kPrefill);
  EXPECT_EQ(trace.choices()[1].phase, Phase::kDecode);
  EXPECT_EQ(trace.choices()[1].step, 5);
  EXPECT_EQ(trace.choices()[1].layer, 1);
}

TEST(RoutingTrace, WithoutAStatedShapeTheRowsGiveIt) {
  const auto trace = RoutingTrace::ParseCsv(
      "# route_trace v1\nturn,phase,step,layer,slot,expert,weight\n"
      "0,1,0,6,0,9,1\n");
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->layers(), 7);
  EXPECT_EQ(trace->experts(), 10);
  EXPECT_EQ(trace->expert_bytes(3), 0);
}

TEST(RoutingTrace, BadInputNamesLineFieldAndLimit) {
  const struct {
    const char* rows;
    const char* message;
  } cases[] = {
      {"0,0,0,0,0,4,1\n", "line 6: expert is \"4\", not a number from 0 to 3"},
      {"0,0,0,2,0,1,1\n", "line 6: layer is \"2\", not a number from 0 to 1"},
      {"0,2,0,0,0,1,1\n", "line 6: phase is \"2\", not a number from 0 to 1"},
      {"0,0,0,0,0,-1,1\n", "line 6: expert is \"-1\""},
      {"0,0,0,0,0,1x,1\n", "line 6: expert is \"1x\""},
      {"0,0,0,0,0,1,nan\n", "line 6: weight is \"nan\", not a finite number"},
      {"0,0,0,0,0\n", "line 6: expert is \"\""},
      {"0,0,0,0,1,1,1\n", "line 6: slot is \"1\", not 0"},
      {"0,0,0,0,0,1,1\n0,0,0,0,2,2,1\n", "line 7: slot is \"2\", not 1"},
      {"0,0,0,0,0,1,1\n0,0,1,0,1,2,1\n", "line 7: slot is \"1\", not 0"},
      {"0,0,0,0,0,1,1\n0,0,0,0,1,1,1\n", "line 7: expert is \"1\", not one"},
      {"99999999999999999999,0,0,0,0,1,1\n", "line 6: turn is"},
      {"", "no rows"},
  };
  for (const auto& [rows, message] : cases) {
    const absl::Status status =
        RoutingTrace::ParseCsv(std::string(kHead) + rows).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << rows;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << rows;
  }
  EXPECT_THAT(std::string(RoutingTrace::ParseCsv("").status().message()),
              HasSubstr("not a routing trace"));
  EXPECT_THAT(std::string(RoutingTrace::ParseCsv(
                              "# route_trace v1\n# n_expert=100000000\n")
                              .status()
                              .message()),
              HasSubstr("line 2: n_expert"));
}

TEST(RoutingTrace, TruncationNeverCrashes) {
  const auto text =
      ReadFile("tests/golden/traces/qwen3-30b-a3b.12-layers.csv", 1 << 20);
  ASSERT_TRUE(text.ok()) << text.status();
  for (size_t size = 0; size < 3000; ++size) {
    const auto trace = RoutingTrace::ParseCsv(text->substr(0, size));
    EXPECT_TRUE(trace.ok() || absl::IsInvalidArgument(trace.status()));
  }
}

TEST(Replay, CountsHitsLoadsAndBytes) {
  // Layer 0: {0 1} {0 2} {0 1}; layer 1: {3} {3}.
  const RoutingTrace trace = Parse(
      "0,1,0,0,0,0,1\n0,1,0,0,1,1,1\n0,1,0,1,0,3,1\n"
      "0,1,1,0,0,0,1\n0,1,1,0,1,2,1\n0,1,1,1,0,3,1\n"
      "0,1,2,0,0,0,1\n0,1,2,0,1,1,1\n");
  const ReplayReport two = Replay(
      trace, {.policy = {.kind = PolicyKind::kLru}, .slots_per_layer = 2});
  EXPECT_EQ(two.lookups, 8);
  EXPECT_EQ(two.hits(), 3);
  EXPECT_EQ(two.loads, 5);
  EXPECT_EQ(two.bytes(), 4 * 100 + 10);
  EXPECT_EQ(two.tokens, 3);
  const ReplayReport three = Replay(
      trace, {.policy = {.kind = PolicyKind::kLru}, .slots_per_layer = 3});
  EXPECT_EQ(three.hits(), 4);
  const ReplayReport one = Replay(
      trace, {.policy = {.kind = PolicyKind::kLru}, .slots_per_layer = 1});
  EXPECT_EQ(one.hits() + one.loads, one.lookups);
}

TEST(Replay, APromptIsOneStepAndPhasesCanBeTakenAlone) {
  const RoutingTrace trace = Parse(
      "0,0,0,0,0,1,1\n0,0,1,0,0,1,1\n0,0,2,0,0,2,1\n"
      "0,1,0,0,0,1,1\n");
  const ReplayReport prefill =
      Replay(trace, {.slots_per_layer = 4, .phase = Phase::kPrefill});
  EXPECT_EQ(prefill.lookups, 2);
  EXPECT_EQ(prefill.tokens, 3);
  const ReplayReport decode =
      Replay(trace, {.slots_per_layer = 4, .phase = Phase::kDecode});
  EXPECT_EQ(decode.lookups, 1);
  EXPECT_EQ(decode.hits(), 0);
  const ReplayReport all = Replay(trace, {.slots_per_layer = 4});
  EXPECT_EQ(all.lookups, 3);
  EXPECT_EQ(all.hits(), 1);
}

TEST(Replay, EqualsAnIndependentSimulation) {
  const RoutingTrace trace = Recorded();
  const struct {
    PolicyKind kind;
    int32_t slots;
    int64_t hits;
  } cases[] = {
      {PolicyKind::kLru, 12, 1695},
      {PolicyKind::kLru, 24, 2334},
      {PolicyKind::kBelady, 12, 2237},
      {PolicyKind::kBelady, 24, 2738},
  };
  for (const auto& [kind, slots, hits] : cases) {
    const ReplayReport report = Replay(trace, {.policy = {.kind = kind},
                                               .slots_per_layer = slots,
                                               .phase = Phase::kDecode});
    EXPECT_EQ(report.lookups, 3600);
    EXPECT_EQ(report.hits(), hits) << slots;
    EXPECT_EQ(report.loads, 3600 - hits) << slots;
  }
}

ReplayConfig Timed(GuesserKind guesser) {
  return {.slots_per_layer = 24,
          .guesser = guesser,
          .link_bytes_per_second = 4e9,
          .layer_seconds = 1e-3,
          .prompt_row_seconds = 1e-4};
}

// A cache of all layers' experts that keeps no slots, only who is in and when
// each was used: the one used least recently goes, in tokens of its layer. Not
// one that this token or, in another layer, the layer's last token used, nor
// one of a layer that has `floor` experts or fewer.
int64_t HitsOfOneLru(const RoutingTrace& trace, int32_t slots, int32_t floor) {
  struct Use {
    int64_t token = -1;
    int64_t order = 0;
    bool held = false;
  };
  const int32_t layers = trace.layers();
  std::vector<std::vector<Use>> uses(
      static_cast<size_t>(layers),
      std::vector<Use>(static_cast<size_t>(trace.experts())));
  std::vector<int64_t> tokens(static_cast<size_t>(layers));
  int64_t clock = 0;
  int64_t hits = 0;
  const auto holds = [&](int32_t layer) {
    return std::ranges::count(uses[layer], true, &Use::held);
  };
  const auto room = [&](int64_t bytes) {
    int64_t taken = 0;
    int64_t all = 0;
    for (int32_t l = 0; l < layers; ++l) {
      if (trace.expert_bytes(l) != bytes) continue;
      all += slots;
      taken += std::max<int64_t>(floor, holds(l));
    }
    return taken < all;
  };
  const auto evict = [&](int32_t home) {
    Use* victim = nullptr;
    int64_t oldest = 0;
    for (int32_t back = 0; back < layers; ++back) {
      const int32_t l = (home + layers - back) % layers;
      if (trace.expert_bytes(l) != trace.expert_bytes(home)) continue;
      if (l != home && holds(l) <= floor) continue;
      Use* least = nullptr;
      for (Use& use : uses[l]) {
        if (!use.held || use.token == tokens[l]) continue;
        if (least == nullptr || use.order < least->order) least = &use;
      }
      if (least == nullptr || tokens[l] - least->token <= oldest) continue;
      oldest = tokens[l] - least->token;
      victim = least;
    }
    CHECK(victim != nullptr);
    victim->held = false;
  };
  for (const RoutingTrace::Choice& choice : trace.choices()) {
    if (choice.phase != Phase::kDecode) continue;
    const int32_t layer = choice.layer;
    ++tokens[layer];
    std::vector<int32_t> missing;
    for (const int32_t expert : trace.chosen(choice)) {
      Use& use = uses[layer][expert];
      use.token = tokens[layer];
      use.order = ++clock;
      hits += use.held;
      if (!use.held) missing.push_back(expert);
    }
    for (const int32_t expert : missing) {
      if (holds(layer) >= floor && !room(trace.expert_bytes(layer))) {
        evict(layer);
      }
      uses[layer][expert].held = true;
    }
  }
  return hits;
}

TEST(Replay, ASharedPoolHitsWhatOneLruOfAllLayersHits) {
  const RoutingTrace trace = Recorded();
  for (const int32_t slots : {8, 12, 24, 48}) {
    int64_t before = -1;
    for (const int32_t floor : {6, 8, slots}) {
      const ReplayReport report =
          Replay(trace, {.policy = {.kind = PolicyKind::kLru},
                         .slots_per_layer = slots,
                         .layer_floor = floor,
                         .phase = Phase::kDecode});
      EXPECT_EQ(report.lookups, 3600);
      EXPECT_EQ(report.hits(), HitsOfOneLru(trace, slots, floor))
          << slots << " slots, floor " << floor;
      EXPECT_EQ(report.loads, 3600 - report.hits());
      if (floor == slots && slots > 8) {
        EXPECT_NE(report.hits(), before);
      }
      before = report.hits();
    }
  }
}

TEST(Replay, AFloorOfAllSlotsIsAsIfNoneMoved) {
  const RoutingTrace trace = Recorded();
  for (const PolicyKind kind :
       {PolicyKind::kCrf, PolicyKind::kLru, PolicyKind::kLfu,
        PolicyKind::kStatic, PolicyKind::kBelady}) {
    ReplayConfig config = Timed(GuesserKind::kLearned);
    config.policy.kind = kind;
    const ReplayReport own = Replay(trace, config);
    config.layer_floor = config.slots_per_layer;
    const ReplayReport shared = Replay(trace, config);
    EXPECT_EQ(own.hits(), shared.hits());
    EXPECT_EQ(own.seconds, shared.seconds);
  }
}

TEST(Replay, NoRuleBeatsBeladyInASharedPool) {
  const RoutingTrace trace = Recorded();
  for (const int32_t slots : {12, 24, 64}) {
    ReplayConfig config{.slots_per_layer = slots, .phase = Phase::kDecode};
    config.policy.kind = PolicyKind::kBelady;
    const int64_t apart = Replay(trace, config).hits();
    config.layer_floor = 1;
    const int64_t best = Replay(trace, config).hits();
    EXPECT_GE(best, apart);
    for (const PolicyKind kind : {PolicyKind::kCrf, PolicyKind::kLru,
                                  PolicyKind::kLfu, PolicyKind::kStatic}) {
      config.policy.kind = kind;
      EXPECT_LE(Replay(trace, config).hits(), best) << slots;
    }
  }
}

TEST(Replay, NoRuleBeatsBeladyAndEverySlotHelpsIt) {
  const RoutingTrace trace = Recorded();
  int64_t fewer_slots = 0;
  for (const int32_t slots : {6, 12, 24, 64, 128}) {
    ReplayConfig config{.slots_per_layer = slots, .phase = Phase::kDecode};
    config.policy.kind = PolicyKind::kBelady;
    const int64_t best = Replay(trace, config).hits();
    EXPECT_GE(best, fewer_slots);
    fewer_slots = best;
    for (const PolicyKind kind : {PolicyKind::kCrf, PolicyKind::kLru,
                                  PolicyKind::kLfu, PolicyKind::kStatic}) {
      config.policy.kind = kind;
      EXPECT_LE(Replay(trace, config).hits(), best) << slots;
    }
  }
}

// Prompts between the tokens, whose experts pass through few slots; the others
// keep to a ring.
TEST(Replay, NoRuleBeatsBeladyOverPrompts) {
  std::mt19937 random(3);
  RoutingTrace trace(32, {0, 0});
  const auto add = [&](int32_t turn, Phase phase, int32_t step, int32_t range) {
    for (int32_t layer = 0; layer < 2; ++layer) {
      const int32_t first = static_cast<int32_t>(random()) & 31;
      const int32_t second = first + 1 + static_cast<int32_t>(random() % range);
      const int32_t experts[] = {first % range, second % range};
      if (experts[0] == experts[1]) continue;
      const float weights[] = {1, 1};
      ASSERT_TRUE(
          trace
              .Add({.turn = turn, .phase = phase, .step = step, .layer = layer},
                   experts, weights)
              .ok());
    }
  };
  for (int32_t turn = 0; turn < 30; ++turn) {
    for (int32_t i = 0; i < 12; ++i) add(turn, Phase::kPrefill, i, 32);
    for (int32_t i = 0; i < 20; ++i) add(turn, Phase::kDecode, i, 14);
  }
  for (int32_t slots = 1; slots <= 32; ++slots) {
    const auto hits = [&](PolicyKind kind) {
      return Replay(trace, {.policy = {.kind = kind}, .slots_per_layer = slots})
          .hits();
    };
    for (const PolicyKind kind : {PolicyKind::kLru, PolicyKind::kLfu,
                                  PolicyKind::kCrf, PolicyKind::kStatic}) {
      EXPECT_GE(hits(PolicyKind::kBelady), hits(kind)) << slots;
    }
  }
}

TEST(Replay, AGovernedReplayTriesWithoutGuessesNowAndThen) {
  const RoutingTrace trace = Recorded();
  ReplayConfig config = Timed(GuesserKind::kOracle);
  config.link_bytes_per_second = 1e10;
  const ReplayReport always = Replay(trace, config);
  config.governed = true;
  const ReplayReport governed = Replay(trace, config);
  const auto guessed = [](const ReplayReport& report) {
    return report.prefetched + report.prefetched_late;
  };
  EXPECT_GT(guessed(governed), guessed(always) / 2);
  EXPECT_LT(guessed(governed), guessed(always));
}

TEST(Replay, WhatALookupFindsIsOneOfFourAndTheBytesAreThoseOfTheLoads) {
  const RoutingTrace trace = Recorded();
  int64_t least = trace.expert_bytes(0);
  int64_t most = least;
  for (int32_t l = 0; l < trace.layers(); ++l) {
    least = std::min(least, trace.expert_bytes(l));
    most = std::max(most, trace.expert_bytes(l));
  }
  for (const GuesserKind guesser :
       {GuesserKind::kNone, GuesserKind::kLearned, GuesserKind::kOracle}) {
    for (const double rate : {0.0, 1e8, 4e9, 1e11}) {
      for (const int32_t slots : {1, 6, 12, 128}) {
        ReplayConfig config = Timed(guesser);
        config.slots_per_layer = slots;
        config.link_bytes_per_second = rate;
        config.oracle_recall = 0.7;
        const ReplayReport report = Replay(trace, config);
        EXPECT_EQ(report.lookups, report.resident + report.prefetched +
                                      report.prefetched_late + report.missed);
        EXPECT_GE(report.bytes(), report.loads * least);
        EXPECT_GE(report.bytes_prefetch_wasted, 0);
        // What is wasted may be a part of a load that was cancelled.
        EXPECT_LE(report.bytes_demand + report.bytes_prefetch_used,
                  report.loads * most);
        EXPECT_NEAR(report.seconds,
                    report.compute_seconds + report.stall_seconds, 1e-9);
        EXPECT_LE(report.link_busy_seconds, report.seconds + 0.1);
        EXPECT_EQ(report.loads, Replay(trace, config).loads);
      }
    }
  }
}

TEST(Replay, TheLinkSlowsButDoesNotChangeWhatALruHits) {
  const RoutingTrace trace = Recorded();
  ReplayConfig config = Timed(GuesserKind::kNone);
  config.policy.kind = PolicyKind::kLru;
  const ReplayReport fast = Replay(trace, config);
  config.link_bytes_per_second = 1e8;
  const ReplayReport slow = Replay(trace, config);
  EXPECT_EQ(fast.hits(), slow.hits());
  EXPECT_GT(slow.stall_seconds, fast.stall_seconds);
  // One after the other, nothing to hide them behind but a layer's own work.
  const double moving = static_cast<double>(slow.bytes()) / 1e8;
  EXPECT_GT(slow.seconds, moving);
  EXPECT_LE(slow.seconds, moving + slow.compute_seconds);
}

TEST(Replay, WhoKnowsTheFutureInTimeMissesLittle) {
  const RoutingTrace trace = Recorded();
  ReplayConfig config = Timed(GuesserKind::kOracle);
  config.phase = Phase::kDecode;
  config.predictor.horizon = 1;
  config.link_bytes_per_second = 1e11;
  const ReplayReport report = Replay(trace, config);
  EXPECT_LT(report.missed, report.lookups / 50);
  EXPECT_GT(report.prefetched, report.lookups / 4);
  EXPECT_EQ(report.prefetched_late, 0);
}

TEST(Replay, LearnedGuessesRaiseTheHitRateWhereTheLinkIsIdle) {
  const RoutingTrace trace = Recorded();
  ReplayConfig config = Timed(GuesserKind::kNone);
  config.slots_per_layer = 12;
  config.phase = Phase::kDecode;  // prompts load nothing ahead
  config.predictor.min_probability = 0.15f;
  const double without = Replay(trace, config).hit_rate();
  config.guesser = GuesserKind::kLearned;
  config.link_bytes_per_second = 1e11;
  EXPECT_GT(Replay(trace, config).hit_rate(), without + 0.02);
}

// A model whose first layers go by the token's id alone, and the others by
// nothing.
RoutingTrace RoutedByIds(bool token_ids) {
  constexpr int32_t kExperts = 32;
  RoutingTrace trace(kExperts, std::vector<int64_t>(6, int64_t{1} << 20));
  std::mt19937 random(31);
  const float weights[] = {0.5f, 0.5f};
  for (int32_t token = 0; token < 1500; ++token) {
    const int32_t id = static_cast<int32_t>(random() % 200);
    for (int32_t layer = 0; layer < trace.layers(); ++layer) {
      const int32_t first = static_cast<int32_t>(
          layer < 3 ? id * (layer + 1) % kExperts : random() % kExperts);
      const int32_t experts[] = {first, (first + 9) % kExperts};
      CHECK(
          trace
              .Add(
                  {.step = token, .layer = layer, .token = token_ids ? id : -1},
                  experts, weights)
              .ok());
    }
  }
  return trace;
}

TEST(Replay, TokenIdsTellTheFirstLayersWhereATraceHasThem) {
  ReplayConfig config{.slots_per_layer = 8,
                      .guesser = GuesserKind::kLearned,
                      .link_bytes_per_second = 1e10,
                      .layer_seconds = 1e-3};
  config.predictor.evidence = Bit(Evidence::kToken);
  const ReplayReport with = Replay(RoutedByIds(/*token_ids=*/true), config);
  const ReplayReport without = Replay(RoutedByIds(/*token_ids=*/false), config);
  EXPECT_EQ(without.prefetched, 0);
  // Half of the lookups are in the first layers, and a quarter of those finds
  // its expert there anyway.
  EXPECT_GT(with.hit_rate(), without.hit_rate() + 0.25);
  EXPECT_LT(with.bytes_prefetch_wasted, with.bytes_prefetch_used / 10);
}

TEST(Replay, DecayedFrequencyBeatsLruOnRecordedRouting) {
  const RoutingTrace trace = Recorded();
  for (const int32_t slots : {12, 24}) {
    ReplayConfig config{.slots_per_layer = slots, .phase = Phase::kDecode};
    const ReplayReport crf = Replay(trace, config);
    config.policy.kind = PolicyKind::kLru;
    EXPECT_GT(crf.hit_rate(), Replay(trace, config).hit_rate() + 0.02);
  }
}

}  // namespace
}  // namespace bullpen
