// What is promised of any trace: guesses cost no more than 2 % of the speed,
// and the chosen rule hits no more than half a point less than LRU. In virtual
// time, on routing made against both.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <functional>
#include <iterator>
#include <limits>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "base/check.h"
#include "engine/experts/replay.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

constexpr int32_t kLayers = 6;
constexpr int32_t kExperts = 32;
constexpr int32_t kTopK = 4;
constexpr int32_t kTokens = 1000;
constexpr int64_t kExpertBytes = int64_t{3} << 20;

using Random = std::mt19937;
using Experts = std::vector<int32_t>;

int32_t Below(Random& random, int32_t limit) {
  return static_cast<int32_t>(random() % static_cast<uint32_t>(limit));
}

// Different experts, drawn by `draw` until there are enough.
Experts Draw(const std::function<int32_t()>& draw) {
  Experts experts;
  while (experts.size() < kTopK) {
    const int32_t expert = draw();
    if (std::ranges::count(experts, expert) == 0) experts.push_back(expert);
  }
  return experts;
}

// What a token's layer uses.
using Routing = std::function<Experts(Random&, int32_t token, int32_t layer)>;

Experts Uniform(Random& random, int32_t, int32_t) {
  return Draw([&] { return Below(random, kExperts); });
}

// All experts one after another: LRU with fewer slots never hits.
Experts Cyclic(Random&, int32_t token, int32_t) {
  Experts experts;
  for (int32_t i = 0; i < kTopK; ++i) {
    experts.push_back((token * kTopK + i) % kExperts);
  }
  return experts;
}

// A few experts for `tokens` tokens, then others: what was learnt is wrong.
Routing Topics(int32_t tokens) {
  return [tokens](Random& random, int32_t token, int32_t layer) {
    const int32_t topic = token / tokens * 7 + layer * 3;
    return Draw([&] { return (topic + Below(random, 10)) % kExperts; });
  };
}

// Each layer follows from the one before, by a rule that changes.
Routing Paths(int32_t tokens) {
  return [tokens](Random& random, int32_t token, int32_t layer) {
    static thread_local int32_t first = 0;
    if (layer == 0) first = Below(random, kExperts);
    const int32_t rule = 1 + token / tokens % 5;
    Experts experts;
    for (int32_t i = 0; i < kTopK; ++i) {
      experts.push_back((first + layer * rule + i * 8) % kExperts);
    }
    return experts;
  };
}

// Few experts are used by nearly all tokens, and the others in turns.
Experts Skewed(Random& random, int32_t token, int32_t) {
  Experts experts = {0, 1, 2 + token % (kExperts - 2)};
  experts.push_back((experts[2] - 1 + Below(random, 15)) % (kExperts - 2) + 2);
  if (experts[3] == experts[2]) experts[3] = 2 + (experts[2] - 1) % 30;
  return experts;
}

// Some are called far more often than others; which, changes.
Routing Favourites(int32_t tokens) {
  return [tokens](Random& random, int32_t token, int32_t layer) {
    Random order(static_cast<uint32_t>(token / tokens * kLayers + layer));
    Experts ranks(kExperts);
    std::iota(ranks.begin(), ranks.end(), 0);
    for (int32_t i = kExperts - 1; i > 0; --i) {
      std::swap(ranks[i], ranks[Below(order, i + 1)]);
    }
    return Draw([&] {
      const double u = Below(random, 1000) / 1000.0;
      return ranks[static_cast<int32_t>(std::pow(kExperts + 1, u)) - 1];
    });
  };
}

// Those called now move on by one expert every `tokens` tokens.
Routing Window(int32_t tokens) {
  return [tokens](Random& random, int32_t token, int32_t) {
    return Draw([&] { return (token / tokens + Below(random, 8)) % kExperts; });
  };
}

// In turns, so that what was best of late is not what comes.
Routing InTurns(int32_t tokens, const Routing& one, const Routing& other) {
  return [=](Random& random, int32_t token, int32_t layer) {
    return (token / tokens % 2 == 0 ? one : other)(random, token, layer);
  };
}

struct Case {
  const char* name;
  Routing routing;
};

std::vector<Case> Cases() {
  return {{"uniform", Uniform},
          {"cyclic", Cyclic},
          {"topics of 20 tokens", Topics(20)},
          {"topics of 100 tokens", Topics(100)},
          {"paths of 30 tokens", Paths(30)},
          {"paths of 150 tokens", Paths(150)},
          {"skewed", Skewed},
          {"favourites of 4 tokens", Favourites(4)},
          {"favourites of 16 tokens", Favourites(16)},
          {"a window of 4 tokens", Window(4)},
          {"in turns of 12 tokens", InTurns(12, Window(4), Favourites(1000))}};
}

RoutingTrace Trace(const Routing& routing, int32_t layers, uint32_t seed) {
  RoutingTrace trace(kExperts, std::vector<int64_t>(static_cast<size_t>(layers),
                                                    kExpertBytes));
  Random random(seed);
  const std::vector<float> weights(kTopK, 0.25f);
  for (int32_t token = 0; token < kTokens; ++token) {
    for (int32_t layer = 0; layer < layers; ++layer) {
      const absl::Status added =
          trace.Add({.step = token, .layer = layer},
                    routing(random, token, layer), weights);
      CHECK(added.ok()) << added;
    }
  }
  return trace;
}

// The predictor that learns, and such that are right this often, with experts
// drawn at random for the rest.
constexpr double kRecalls[] = {0, 0.5, 0.8};

// The speed with guesses of each kind over that without.
struct Gain {
  double least = std::numeric_limits<double>::infinity();
  double most = 0;
};
using Gains = std::array<Gain, std::size(kRecalls)>;

void ExpectGuessesToCostLittle(const RoutingTrace& trace, ReplayConfig config,
                               Gains& gains) {
  config.predictor.horizon = 2;
  config.predictor.min_probability = 0.15f;
  const double off = Replay(trace, config).tokens_per_second();
  for (size_t i = 0; i < std::size(kRecalls); ++i) {
    config.oracle_recall = kRecalls[i];
    config.guesser =
        kRecalls[i] > 0 ? GuesserKind::kOracle : GuesserKind::kLearned;
    const double gain = Replay(trace, config).tokens_per_second() / off;
    EXPECT_GE(gain, 0.98) << kRecalls[i];
    gains[i].least = std::min(gains[i].least, gain);
    gains[i].most = std::max(gains[i].most, gain);
  }
}

// Guesses that the governor tries, and such that are loaded always.
class GuessBounds : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Prefetch, GuessBounds, ::testing::Values(true, false),
                         [](const auto& governed) {
                           return governed.param ? "Auto" : "On";
                         });

TEST_P(GuessBounds, GuessesCostNoMoreThanTwoPerCentOfTheSpeed) {
  for (const Case& one : Cases()) {
    uint32_t seed = 0;
    Gains gains;
    for (const int32_t slots : {8, 16}) {
      for (const double rate : {2e8, 1e9, 2e10}) {
        for (const double layer_seconds : {1e-4, 1e-3, 4e-3}) {
          SCOPED_TRACE(testing::Message()
                       << one.name << ", " << slots << " slots, " << rate
                       << " bytes/s, " << layer_seconds << " s a layer, "
                       << "seed " << seed + 1);
          ExpectGuessesToCostLittle(Trace(one.routing, kLayers, ++seed),
                                    {.slots_per_layer = slots,
                                     .governed = GetParam(),
                                     .link_bytes_per_second = rate,
                                     .layer_seconds = layer_seconds},
                                    gains);
        }
      }
    }
    // The rows of bench/README.md; 0 % right is the learned predictor.
    std::printf("%-23s", one.name);
    for (size_t i = 0; i < std::size(kRecalls); ++i) {
      std::printf("  %.0f %% right: %.3f to %.3f", 100 * kRecalls[i],
                  gains[i].least, gains[i].most);
    }
    std::printf("\n");
  }
}

void ExpectHitsWithinHalfAPointOfLru(const RoutingTrace& trace) {
  for (const int32_t slots : {4, 6, 8, 12, 16, 24, 31}) {
    ReplayConfig config{.slots_per_layer = slots};
    const double crf = Replay(trace, config).hit_rate();
    config.policy.kind = PolicyKind::kLru;
    EXPECT_GE(crf, Replay(trace, config).hit_rate() - 0.005)
        << slots << " slots";
  }
}

// With few lookups the rules differ most by chance.
TEST(ReplayBounds, TheChosenRuleHitsWithinHalfAPointOfLru) {
  for (const Case& one : Cases()) {
    for (const int32_t layers : {1, kLayers}) {
      for (uint32_t seed = 1; seed <= 5; ++seed) {
        SCOPED_TRACE(testing::Message()
                     << one.name << ", " << layers << " layers, seed " << seed);
        ExpectHitsWithinHalfAPointOfLru(Trace(one.routing, layers, seed));
      }
    }
  }
}

}  // namespace
}  // namespace bullpen
