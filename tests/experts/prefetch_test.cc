#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "engine/experts/prefetcher.h"
#include "engine/experts/profile.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_blob_reader.h"
#include "tests/fakes/host_cache.h"

namespace bullpen {
namespace {

constexpr int64_t kBlob = int64_t{4} << 20;  // a wrong one costs 2 MiB
constexpr double kMiB = 1 << 20;

// Steps of ten layers and ten seconds, of which demands are under way for this
// long, and whose guesses were used this often beside what they promised. The
// link moves 2 MiB a second.
void RunSteps(PrefetchRule& rule, int32_t steps, double demand_seconds,
              double expected = 0, double used = 0) {
  for (int32_t i = 0; i < steps; ++i) {
    rule.EndStep({.seconds = 10,
                  .demand_seconds = demand_seconds,
                  .busy_seconds = 4,
                  .bytes = 8 << 20,
                  .layers = 10,
                  .uses_expected = expected,
                  .uses = used});
  }
}

TEST(PrefetchRuleTest, ThereIsRoomForWhatTheLinkMovesWhileNoDemandWaits) {
  PrefetchRule rule(0.15);
  EXPECT_GE(rule.Room(1, kBlob, 0), static_cast<double>(kBlob));
  RunSteps(rule, 1, /*demand_seconds=*/5);
  EXPECT_NEAR(rule.Room(1, kBlob, 0), kMiB, 1);
  EXPECT_NEAR(rule.Room(3, kBlob, 1 << 20), 2 * kMiB, 1);
  RunSteps(rule, 200, 10);
  EXPECT_NEAR(rule.Room(4, kBlob, 0), 0, 1);
}

TEST(PrefetchRuleTest, AGuessPaysIfItSavesMoreThanAWrongOneHoldsUp) {
  const PrefetchRule rule(0.15);
  EXPECT_EQ(GuessChunkBytes(kBlob), 1 << 20);
  // A wrong one costs 4/3 chunks and a sixth of the four MiB: two. With room
  // for all of it: p * 4 > (1 - p) * 2.
  EXPECT_LE(rule.Worth(0.33, kBlob, 10 * kMiB), 0);
  EXPECT_GT(rule.Worth(0.34, kBlob, 10 * kMiB), 0);
  // With room for an eighth: p * 0.5 > (1 - p) * 2.
  EXPECT_LE(rule.Worth(0.79, kBlob, 0.5 * kMiB), 0);
  EXPECT_GT(rule.Worth(0.81, kBlob, 0.5 * kMiB), 0);
  // One that is read in one piece: p > (1 - p) * 1.5.
  EXPECT_LE(rule.Worth(0.59, 1 << 16, kMiB), 0);
  EXPECT_GT(rule.Worth(0.61, 1 << 16, kMiB), 0);
  EXPECT_LE(rule.Worth(1, kBlob, 0), 0);
  EXPECT_LE(rule.Worth(1, kBlob, -kMiB), 0);
  EXPECT_LE(PrefetchRule(0.5).Worth(0.49, kBlob, 10 * kMiB), 0);
}

TEST(PrefetchRuleTest, WorthIsThePartOfALoadThatIsSaved) {
  const PrefetchRule rule(0.15);
  EXPECT_NEAR(rule.Worth(1, kBlob, 10 * kMiB), 1, 1e-9);
  EXPECT_NEAR(rule.Worth(1, kBlob, kMiB), 0.25, 1e-9);
  EXPECT_NEAR(rule.Worth(0.5, kBlob, 10 * kMiB), (2 - 1.0) / 4, 1e-9);
}

// Loads three guesses of a layer whose slots hold `resident`; who was kept.
std::vector<int32_t> LoadGuesses(const std::vector<int32_t>& resident,
                                 double room, std::vector<int32_t>& loaded) {
  const PrefetchRule rule(0.15);
  const ExpertGuess guesses[] = {{.expert = 3, .probability = 0.9f},
                                 {.expert = 5, .probability = 0.8f},
                                 {.expert = 4, .probability = 0.35f}};
  std::vector<int32_t> kept;
  rule.Load(guesses, {.blob_bytes = kBlob,
                      .room = room,
                      .keep =
                          [&](int32_t expert) {
                            const bool there =
                                std::ranges::count(resident, expert) > 0;
                            if (there) kept.push_back(expert);
                            return there;
                          },
                      .load =
                          [&](int32_t expert) {
                            loaded.push_back(expert);
                            return true;
                          }});
  return kept;
}

TEST(PrefetchRuleTest, EvictsNobodyWhoIsWantedAsMuchAsAGuessIsWorth) {
  using testing::ElementsAre;
  using testing::IsEmpty;
  std::vector<int32_t> loaded;
  // With room for half of it, 3 is worth 0.9 * 0.5 - 0.1 * 0.5.
  EXPECT_THAT(LoadGuesses({5, 4}, 2 * kMiB, loaded), ElementsAre(5));
  EXPECT_THAT(loaded, ElementsAre(3));
  loaded.clear();
  // With room for all of it 0.85, and nothing is left for the next.
  EXPECT_THAT(LoadGuesses({4}, 4 * kMiB, loaded), IsEmpty());
  EXPECT_THAT(loaded, ElementsAre(3));
  loaded.clear();
  EXPECT_THAT(LoadGuesses({}, 20 * kMiB, loaded), IsEmpty());
  EXPECT_THAT(loaded, ElementsAre(3, 5, 4));
}

TEST(PrefetchRuleTest, GuessesThatPromiseTooMuchAreScaledAndTriedAgain) {
  PrefetchRule rule(0.15);
  RunSteps(rule, 300, 5, /*expected=*/4, /*used=*/1);
  EXPECT_LE(rule.Worth(0.9, kBlob, 10 * kMiB), 0);  // as much as 0.23
  RunSteps(rule, 300, 5, /*expected=*/0, /*used=*/0);
  EXPECT_GT(rule.Worth(0.41, kBlob, 10 * kMiB), 0);
  // More than was promised makes them no surer.
  RunSteps(rule, 300, 5, /*expected=*/1, /*used=*/2);
  EXPECT_LE(rule.Worth(0.33, kBlob, 10 * kMiB), 0);
}

// A model whose layer l + 1 always wants the experts that layer l chose, and
// whose routers say so.
class PrefetcherTest : public testing::Test {
 protected:
  static constexpr int32_t kLayers = 4;
  static constexpr int32_t kExperts = 16;
  static constexpr int32_t kTopK = 2;

  void Create(int32_t slots, bool always) {
    const CacheConfig cache{.slots = std::vector<int32_t>(kLayers, slots)};
    cache_ = std::make_unique<HostCache>(model_.catalog, cache, transfers_,
                                         metrics_);
    PrefetchConfig config{.always = always, .profile = profile_};
    config.predictor.horizon = 2;
    config.shape.max_rows = Prefetcher::kMaxRows;
    config.shape.vocab = vocab_;
    config.shape.layers.assign(kLayers, {.experts = kExperts, .top_k = kTopK});
    prefetcher_ = std::make_unique<Prefetcher>(config, *cache_, metrics_);
  }

  // One decode step; loads ahead end before the next layer runs.
  void Step(const std::vector<int32_t>& chosen, double layer_seconds) {
    const std::vector<int32_t> counts(chosen.size(), 1);
    const auto look_ahead = [&](int32_t, int32_t) -> std::span<const float> {
      if (!ids_.empty()) return {};
      margins_.assign(kExperts, -8.0f);
      for (const int32_t expert : chosen) margins_[expert] = 0.5f;
      return margins_;
    };
    const RequestRows request{
        .request = request_, .rows = 1, .begins = begins_};
    prefetcher_->BeginStep({.ids = ids_, .requests = {&request, 1}},
                           look_ahead);
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      while (transfers_.under_way() > 0) cache_->Prefetch({});
      ExpertCache::Acquisition step =
          cache_->Acquire(layer, chosen, counts, 1, Phase::kDecode);
      prefetcher_->AfterRoute({.layer = layer, .chosen = chosen, .rows = 1},
                              look_ahead);
      while (!step.Next().empty()) {
      }
    }
    while (transfers_.under_way() > 0) cache_->Prefetch({});
    prefetcher_->EndStep(kLayers * layer_seconds, 1, Phase::kDecode);
  }

  // Whether a step of the first layer loads what the routers of the others
  // want and what is in no slot.
  bool LoadsAhead(int32_t rows, Phase phase) {
    const std::vector<int32_t> resident = cache_->Snapshot().layers[1].resident;
    int32_t missing = 0;
    while (std::ranges::count(resident, missing) > 0) ++missing;
    margins_.assign(static_cast<size_t>(rows) * kExperts, -8.0f);
    for (int32_t row = 0; row < rows; ++row) {
      margins_[static_cast<size_t>(row) * kExperts + missing] = 0.5f;
    }
    std::vector<int32_t> chosen;
    for (int32_t row = 0; row < rows; ++row) {
      chosen.insert(chosen.end(), {missing, (missing + 5) % kExperts});
    }
    prefetcher_->AfterRoute(
        {.layer = 0, .chosen = chosen, .rows = rows, .phase = phase},
        [&](int32_t, int32_t) -> std::span<const float> { return margins_; });
    const bool loads = transfers_.under_way() > 0;
    while (transfers_.under_way() > 0) cache_->Prefetch({});
    return loads;
  }

  FakeModel model_ = MakeFakeModel(
      {.layers = kLayers, .experts = kExperts, .blob_bytes = 4096}, 3);
  FakeBlobReader reader_{model_.files};
  TransferQueue transfers_{reader_, {}};
  Metrics metrics_;
  std::unique_ptr<HostCache> cache_;
  std::unique_ptr<Prefetcher> prefetcher_;
  std::vector<float> margins_;
  std::filesystem::path profile_;
  int32_t request_ = 0;
  bool begins_ = false;
  int32_t vocab_ = 0;
  std::vector<int32_t> ids_;  // of the next step; where there are, routers of
                              // coming layers say nothing
};

TEST_F(PrefetcherTest, LoadsWhatTheRoutersOfComingLayersWant) {
  Create(/*slots=*/4, /*always=*/true);
  std::mt19937 random(11);
  for (int i = 0; i < 400; ++i) {
    const int32_t first = static_cast<int32_t>(random() % kExperts);
    Step({first, (first + 5) % kExperts}, 1e-3);
  }
  // Only the first layer has nobody before it. A quarter of the rest may be
  // lost to learning.
  const LookupCounts& counts = cache_->accounts().decode();
  EXPECT_GT(counts.prefetched, counts.missed);
  EXPECT_LT(counts.missed, 400u * kTopK * 2);
  const TransferredBytes& bytes = cache_->accounts().transferred();
  EXPECT_LT(bytes.prefetch_wasted, bytes.prefetch_used / 10);
}

// Routing follows from the id; routers say nothing.
TEST_F(PrefetcherTest, LoadsForTheFirstLayersWhatTheIdsOfAStepUsedBefore) {
  constexpr int32_t kVocab = 40;
  vocab_ = kVocab;
  Create(/*slots=*/4, /*always=*/true);
  std::mt19937 random(23);
  uint64_t hits = 0;
  for (int i = 0; i < 800; ++i) {
    if (i == 400) hits = cache_->accounts().layer(0).hits;
    const int32_t id = static_cast<int32_t>(random() % kVocab);
    ids_ = {id};
    Step({id % kExperts, (id + 5) % kExperts}, 1e-3);
  }
  hits = cache_->accounts().layer(0).hits - hits;
  EXPECT_GT(hits, 400u * kTopK * 19 / 20);
  const prometheus::Labels tokens = {{"predictor", "token"}, {"horizon", "1"}};
  EXPECT_GT(metrics_.predictor_precision.Add(tokens).Value(), 0.9);
}

TEST_F(PrefetcherTest, LoadsNothingAheadThatWouldComeTooLate) {
  Create(/*slots=*/4, /*always=*/true);
  std::mt19937 random(11);
  // Layers compute in no time, as far as anyone measured.
  for (int i = 0; i < 50; ++i) {
    const int32_t first = static_cast<int32_t>(random() % kExperts);
    Step({first, (first + 5) % kExperts}, 1e-12);
  }
  const uint64_t before = cache_->accounts().decode().prefetched;
  reader_.CloseGate();
  cache_->Prefetch(std::vector<ExpertKey>{{3, 0}, {3, 1}, {3, 2}, {3, 3}});
  const int64_t waiting = cache_->accounts().guess_bytes_under_way();
  prefetcher_->AfterRoute(
      {.layer = 0, .chosen = std::vector<int32_t>{8, 13}, .rows = 1},
      [&](int32_t, int32_t) -> std::span<const float> { return {}; });
  EXPECT_EQ(cache_->accounts().guess_bytes_under_way(), waiting);
  EXPECT_EQ(cache_->accounts().decode().prefetched, before);
  reader_.OpenGate();
}

TEST_F(PrefetcherTest, LoadsNothingAheadWhereDemandsKeepTheLinkBusy) {
  Create(/*slots=*/4, /*always=*/true);
  std::mt19937 random(11);
  const auto draw = [&] {
    const int32_t first = static_cast<int32_t>(random() % kExperts);
    return std::vector<int32_t>{first, (first + 5) % kExperts};
  };
  for (int i = 0; i < 300; ++i) Step(draw(), 1e-3);
  // Steps of nothing but waiting.
  const std::vector<int32_t> counts(kTopK, 1);
  for (int i = 0; i < 200; ++i) {
    const double before = cache_->demand_seconds();
    reader_.CloseGate();
    {
      ExpertCache::Acquisition step =
          cache_->Acquire(0, draw(), counts, 1, Phase::kDecode);
      while (step.waits() && cache_->demand_seconds() < before + 1e-4) {
      }
      reader_.OpenGate();
      while (!step.Next().empty()) {
      }
    }
    prefetcher_->EndStep(cache_->demand_seconds() - before, 1, Phase::kDecode);
  }
  EXPECT_FALSE(LoadsAhead(1, Phase::kDecode));
}

TEST_F(PrefetcherTest, LoadsAheadForFewDecodedTokensAndNotInATrialWithout) {
  Create(/*slots=*/4, /*always=*/false);
  // Two windows of the governor's, and the first trial begins.
  for (int i = 0; i < 36; ++i) {
    Step({i % kExperts, (i + 3) % kExperts}, 1e-3);
    if (i < 8 || i == 35) continue;  // the routers are to be trusted yet
    EXPECT_FALSE(LoadsAhead(1, Phase::kPrefill));
    EXPECT_FALSE(LoadsAhead(Prefetcher::kMaxRows + 1, Phase::kDecode));
    EXPECT_TRUE(LoadsAhead(1, Phase::kDecode)) << i;
  }
  EXPECT_FALSE(LoadsAhead(1, Phase::kDecode));
  for (int i = 0; i < 18; ++i) Step({1, 4}, 1e-3);
  EXPECT_TRUE(LoadsAhead(1, Phase::kDecode));
}

// Requests of two kinds: their prompts tell them apart.
TEST_F(PrefetcherTest, LearnsFromPastRequestsWhatALikeOneUses) {
  Create(/*slots=*/4, /*always=*/true);
  const auto none = [](int32_t, int32_t) -> std::span<const float> {
    return {};
  };
  for (int i = 0; i < 32; ++i) {
    const std::vector<int32_t> chosen = {i % 2, 5 + i % 2};
    request_ = i;
    const RequestRows prompt{.request = i, .rows = 1, .begins = true};
    prefetcher_->BeginStep(
        {.ids = {}, .requests = {&prompt, 1}, .phase = Phase::kPrefill}, none);
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      prefetcher_->AfterRoute({.layer = layer,
                               .chosen = chosen,
                               .rows = 1,
                               .phase = Phase::kPrefill},
                              none);
    }
    for (int token = 0; token < 4; ++token) Step(chosen, 1e-3);
  }
  const prometheus::Labels label = {{"predictor", "request"}, {"horizon", "1"}};
  EXPECT_GT(metrics_.predictor_precision.Add(label).Value(), 0.9);
}

TEST_F(PrefetcherTest, PublishesHowGoodItsGuessesWere) {
  Create(/*slots=*/4, /*always=*/true);
  for (int i = 0; i < 128; ++i) Step({i % kExperts, (i + 3) % kExperts}, 1e-3);
  const prometheus::Labels router = {{"predictor", "router"}, {"horizon", "1"}};
  EXPECT_EQ(metrics_.predictor_precision.Add(router).Value(), 1);
  EXPECT_EQ(metrics_.predictor_recall.Add(router).Value(), 1);
  EXPECT_EQ(metrics_.prefetch_on.Value(), 1);
  for (const char* const name : {"router", "path", "combined"}) {
    const double seconds =
        metrics_.predictor_seconds.Add({{"predictor", name}}).Value();
    EXPECT_GT(seconds, 0) << name;
    EXPECT_LT(seconds, 60) << name;
  }
}

TEST_F(PrefetcherTest, KeepsWhatItLearntInItsProfile) {
  const std::filesystem::path profile =
      std::filesystem::path(testing::TempDir()) / "prefetch_test.profile";
  std::filesystem::remove(profile);
  profile_ = profile;
  Create(/*slots=*/4, /*always=*/true);
  begins_ = true;
  for (int i = 0; i < 64; ++i) {
    Step({i % kExperts, (i + 3) % kExperts}, 1e-3);
    begins_ = false;
  }
  prefetcher_.reset();
  ASSERT_TRUE(std::filesystem::exists(profile));
  RoutingShape shape;
  shape.layers.assign(kLayers, {.experts = kExperts, .top_k = kTopK});
  RoutingPredictor predictor(shape, {.horizon = 2});
  ActivationStore store(shape, 8);
  ASSERT_TRUE(LoadProfile(profile, predictor, store).ok());
  EXPECT_EQ(store.matrices().size(), 1u);

  // A damaged one is not trusted, and does not stop anybody.
  std::filesystem::resize_file(profile, 100);
  Create(/*slots=*/4, /*always=*/true);
  Step({1, 2}, 1e-3);
  prefetcher_.reset();
  EXPECT_TRUE(LoadProfile(profile, predictor, store).ok());
}

TEST(LimitRateTest, ReadsTakeAtLeastTheirTime) {
  using Clock = std::chrono::steady_clock;
  const FakeModel model = MakeFakeModel({.blob_bytes = 4096}, 5);
  const auto reader =
      LimitRate(std::make_unique<FakeBlobReader>(model.files), 1 << 20);
  alignas(4096) static std::byte buffer[4096];
  const Clock::time_point start = Clock::now();
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(reader->Read(0, 0, buffer).ok());
  }
  // 8 blocks of 4 KiB at 1 MiB a second: never earlier, whatever the machine.
  EXPECT_GE(Clock::now() - start, std::chrono::microseconds(31250));
}

}  // namespace
}  // namespace bullpen
