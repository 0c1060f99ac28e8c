// The engine over the default model with room for a quarter of its experts:
// what a disk that fails, lies, crawls or stands still does to requests.

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/engine_fixture.h"
#include "tests/fakes/decoder.h"
#include "tests/fakes/fake_blob_reader.h"
#include "tests/fakes/golden.h"

namespace bullpen {
namespace {

constexpr char kSource[] = "models/default";
constexpr int32_t kTokens = 12;

std::vector<std::vector<int32_t>> Prompts() {
  return LoadGolden(kSource).prompts;
}

ModelOptions Options(const PackedModel& packed, int32_t slots) {
  ModelOptions options;
  options.threads = 1;
  options.context = 512;
  options.memory.expert_bytes = ExpertBytesFor(packed, slots);
  return options;
}

// An engine whose experts come from memory, through a reader that a test can
// stop and spoil.
class OffloadEngine {
 public:
  explicit OffloadEngine(int32_t slots, const EngineConfig& config = {})
      : OffloadEngine(slots, config, [](ModelOptions&) {}) {}
  OffloadEngine(int32_t slots, const EngineConfig& config,
                const std::function<void(ModelOptions&)>& change) {
    absl::StatusOr<PackedModel> packed =
        PackedModel::Open(PackedForTest(kSource));
    CHECK(packed.ok()) << packed.status();
    catalog_ = packed->catalog();
    auto reader =
        std::make_unique<FakeBlobReader>(FakeBlobReader::Load(catalog_.files));
    reader_ = reader.get();
    ModelOptions options = Options(*packed, slots);
    change(options);
    absl::StatusOr<std::unique_ptr<Model>> model =
        Model::Load(*std::move(packed), options, metrics_, std::move(reader));
    CHECK(model.ok()) << model.status();
    engine_ = std::make_unique<Engine>(*std::move(model), config, metrics_);
  }

  absl::Status Submit(Request request, Reader& reader) {
    std::vector<Submission> submissions;
    submissions.push_back({std::move(request), reader.stream()});
    return engine_->Submit(std::move(submissions));
  }
  absl::Status Submit(const std::vector<int32_t>& prompt, Reader& reader,
                      int32_t tokens = kTokens) {
    return Submit(Greedy(prompt, tokens), reader);
  }
  // The tokens of a request that runs alone and ends well.
  std::vector<int32_t> Generate(const std::vector<int32_t>& prompt,
                                int32_t tokens = kTokens) {
    Reader reader;
    EXPECT_TRUE(Submit(prompt, reader, tokens).ok());
    EXPECT_TRUE(reader.Wait().status.ok()) << reader.Wait().status;
    return reader.ids();
  }
  void SetDisk(const absl::Status& status) {
    for (const ExpertCatalog::Layer& layer : catalog_.layers) {
      for (const ExpertLocation& place : layer.experts) {
        reader_->SetStatus(place.file, place.offset, status);
      }
    }
  }
  // Work and loads are at rest.
  bool AtBaseLine() const {
    return metrics_.requests_waiting.Value() == 0 &&
           metrics_.requests_running.Value() == 0 &&
           metrics_.kv_blocks_used.Value() == 0;
  }

  const ExpertCatalog& catalog() const { return catalog_; }
  FakeBlobReader& disk() { return *reader_; }
  Engine& engine() { return *engine_; }
  Metrics& metrics() { return metrics_; }

 private:
  Metrics metrics_;
  ExpertCatalog catalog_;
  FakeBlobReader* reader_ = nullptr;  // the model's
  std::unique_ptr<Engine> engine_;
};

const std::vector<std::vector<int32_t>>& Reference() {
  static const auto* const tokens = [] {
    auto* all = new std::vector<std::vector<int32_t>>;
    OffloadEngine whole(32);
    for (const auto& prompt : Prompts()) all->push_back(whole.Generate(prompt));
    return all;
  }();
  return *tokens;
}

// The (layer, expert) pairs that a request uses.
std::set<std::pair<int, int32_t>> UsedBy(size_t prompt) {
  ModelOptions options;
  options.threads = 1;
  options.context = 512;
  Decoder decoder(kSource, options);
  std::set<std::pair<int, int32_t>> used;
  decoder.model().set_tap(
      {.hidden = {},
       .routing = [&](int layer, std::span<const int32_t> experts,
                      std::span<const float>) {
         for (const int32_t expert : experts) used.emplace(layer, expert);
       }});
  std::vector<int32_t> ids = Prompts()[prompt];
  ids.insert(ids.end(), Reference()[prompt].begin(), Reference()[prompt].end());
  decoder.Feed(ids, static_cast<int32_t>(ids.size()));
  return used;
}

TEST(EngineOffload, OneUnreadableExpertFailsThoseThatNeedItAndNoOther) {
  const auto needs = UsedBy(3);
  const auto spares = UsedBy(0);
  std::vector<std::pair<int, int32_t>> only;
  std::ranges::set_difference(needs, spares, std::back_inserter(only));
  ASSERT_FALSE(only.empty());
  OffloadEngine f(8);
  const auto [layer, expert] = only[only.size() / 2];
  const ExpertLocation& place = f.catalog().layers[layer].experts[expert];
  f.disk().SetStatus(place.file, place.offset,
                     absl::InternalError("Input/output error"));
  for (int round = 0; round < 2; ++round) {
    Reader bad, good;
    ASSERT_TRUE(f.Submit(Prompts()[3], bad).ok());
    ASSERT_TRUE(f.Submit(Prompts()[0], good).ok());
    EXPECT_TRUE(absl::IsDataLoss(bad.Wait().status)) << bad.Wait().status;
    EXPECT_THAT(std::string(bad.Wait().status.message()),
                testing::HasSubstr("Input/output error"));
    EXPECT_TRUE(good.Wait().status.ok()) << good.Wait().status;
    EXPECT_EQ(good.ids(), Reference()[0]);
    EXPECT_TRUE(f.AtBaseLine());
  }
  EXPECT_GE(f.metrics().expert_load_failures.Value(), 2);
  f.disk().SetStatus(place.file, place.offset, absl::OkStatus());
  EXPECT_EQ(f.Generate(Prompts()[3]), Reference()[3]);
}

TEST(EngineOffload, ADeadDiskFailsEveryRequestAndComesBack) {
  OffloadEngine f(8, {.max_sequences = 2});
  f.SetDisk(absl::DataLossError("Input/output error"));
  std::vector<Reader> readers(6);
  for (size_t i = 0; i < readers.size(); ++i) {
    ASSERT_TRUE(f.Submit(Prompts()[i % Prompts().size()], readers[i]).ok());
  }
  for (Reader& reader : readers) {
    EXPECT_TRUE(absl::IsDataLoss(reader.Wait().status));
    EXPECT_TRUE(reader.ids().empty());
  }
  EXPECT_TRUE(f.AtBaseLine());
  EXPECT_EQ(f.metrics().finished_error.Value(), 6);
  f.SetDisk(absl::OkStatus());
  for (size_t i = 0; i < Prompts().size(); ++i) {
    EXPECT_EQ(f.Generate(Prompts()[i]), Reference()[i]);
  }
}

// Short reads, wrong bytes and errors by seed: a request gives the right
// tokens up to its end, or up to a DataLoss.
TEST(EngineOffload, ADiskThatLiesNeverChangesAToken) {
  int32_t failed = 0;
  int32_t whole = 0;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    OffloadEngine f(8, {.max_sequences = 2}, [&](ModelOptions& options) {
      options.prefetch = seed % 2 == 0 ? "on" : "off";
    });
    f.disk().SetFaults(
        {.fail = 5e-4, .shorten = 5e-4, .corrupt = 5e-4, .yields = 3}, seed);
    std::vector<Reader> readers(8);
    for (size_t i = 0; i < readers.size(); ++i) {
      ASSERT_TRUE(f.Submit(Prompts()[i % Prompts().size()], readers[i]).ok());
    }
    for (size_t i = 0; i < readers.size(); ++i) {
      const absl::Status& status = readers[i].Wait().status;
      const std::vector<int32_t> ids = readers[i].ids();
      const std::vector<int32_t>& right = Reference()[i % Prompts().size()];
      EXPECT_TRUE(status.ok() || absl::IsDataLoss(status)) << status;
      ASSERT_LE(ids.size(), right.size());
      EXPECT_TRUE(std::equal(ids.begin(), ids.end(), right.begin()));
      if (status.ok()) {
        EXPECT_EQ(ids, right);
      }
      (status.ok() ? whole : failed) += 1;
    }
    EXPECT_TRUE(f.AtBaseLine());
  }
  EXPECT_GT(failed, 0);
  EXPECT_GT(whole, 0);
}

// As when the transfer threads are stopped.
TEST(EngineOffload, WhileReadsStandStillRequestsWaitAndTheQueueHasALimit) {
  Reference();
  OffloadEngine f(8, {.max_queue = 2, .max_sequences = 1});
  f.disk().CloseGate();
  std::vector<Reader> readers(3);
  ASSERT_TRUE(f.Submit(Prompts()[0], readers[0]).ok());
  f.disk().AwaitAtGate(1);
  ASSERT_TRUE(f.Submit(Prompts()[1], readers[1]).ok());
  ASSERT_TRUE(f.Submit(Prompts()[2], readers[2]).ok());
  Reader refused;
  EXPECT_TRUE(absl::IsResourceExhausted(f.Submit(Prompts()[3], refused)));
  EXPECT_TRUE(readers[0].ids().empty());
  EXPECT_GT(f.metrics().expert_slots_loading.Value(), 0);
  readers[2].stream()->Cancel();
  f.disk().OpenGate();
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(readers[i].Wait().status.ok()) << readers[i].Wait().status;
    EXPECT_EQ(readers[i].ids(), Reference()[i]);
  }
  EXPECT_TRUE(absl::IsCancelled(readers[2].Wait().status));
  EXPECT_TRUE(f.AtBaseLine());
}

// One step may wait for a disk for minutes: its life shows in what arrives.
TEST(EngineOffload, AStepThatWaitsForTheDiskIsAliveWithEachExpertThatComes) {
  constexpr int32_t kSlots = 8;
  Reference();
  OffloadEngine f(kSlots, {},
                  [](ModelOptions& options) { options.prefetch = "off"; });
  f.disk().CloseGate();
  Reader reader;
  ASSERT_TRUE(f.Submit(Prompts()[0], reader).ok());
  f.disk().AwaitAtGate(1);
  const Clock::time_point first_read = Clock::now();
  // More than the slots: some have come, and are computed.
  while (f.disk().log().size() <= kSlots) {
    f.disk().LetPass(1);
    f.disk().AwaitAtGate(1);
  }
  EXPECT_TRUE(reader.ids().empty());
  const auto beat_after_first_read = [&] {
    const Clock::time_point now = Clock::now();
    const std::chrono::duration<double> silent(
        f.engine().seconds_since_heartbeat());
    return now - silent > first_read;
  };
  // Whoever is held up between the two clocks looks again.
  bool alive = false;
  for (int i = 0; i < 1000 && !alive; ++i) alive = beat_after_first_read();
  EXPECT_TRUE(alive);
  f.disk().OpenGate();
  EXPECT_TRUE(reader.Wait().status.ok());
  EXPECT_EQ(reader.ids(), Reference()[0]);
}

// Feeds a request with as many reads as it takes to be amid its first step,
// some experts computed; the rest stand still.
void RunIntoFirstStep(OffloadEngine& f, Reader& reader) {
  f.disk().CloseGate();
  ASSERT_TRUE(f.Submit(Prompts()[0], reader).ok());
  const auto of_second_layer = [&](const FakeBlobReader::Place& place) {
    return std::ranges::any_of(
        f.catalog().layers[1].experts, [&](const ExpertLocation& expert) {
          return expert.file == place.file && expert.offset == place.offset;
        });
  };
  do {
    f.disk().LetPass(1);
    f.disk().AwaitAtGate(1);
  } while (std::ranges::none_of(f.disk().log(), of_second_layer));
}

TEST(EngineOffload, WhenTheTimeToDrainIsUpAStepEndsAlthoughNoDiskAnswers) {
  OffloadEngine f(8, {.max_sequences = 1});
  Reader running, waiting;
  RunIntoFirstStep(f, running);
  ASSERT_TRUE(f.Submit(Prompts()[1], waiting).ok());
  EXPECT_FALSE(f.engine().WaitDrained(Clock::time_point()));
  EXPECT_EQ(running.Wait().status,
            absl::UnavailableError("the server is shutting down"));
  EXPECT_TRUE(absl::IsUnavailable(waiting.Wait().status));
  EXPECT_TRUE(running.ids().empty());
  EXPECT_TRUE(f.AtBaseLine());
  f.engine().Stop();
  f.disk().OpenGate();
}

TEST(EngineOffload, StopEndsAStepAlthoughNoDiskAnswers) {
  OffloadEngine f(8);
  Reader reader;
  RunIntoFirstStep(f, reader);
  f.engine().Stop();
  EXPECT_TRUE(absl::IsUnavailable(reader.Wait().status));
  EXPECT_TRUE(f.AtBaseLine());
  f.disk().OpenGate();
}

TEST(EngineOffload, AStepThatNobodyWantsEndsWithTheNextExpertAndSparesItsRest) {
  Reference();
  OffloadEngine f(8, {},
                  [](ModelOptions& options) { options.prefetch = "off"; });
  Reader reader;
  RunIntoFirstStep(f, reader);
  reader.stream()->Cancel();
  f.disk().LetPass(1);
  EXPECT_TRUE(absl::IsCancelled(reader.Wait().status));
  EXPECT_EQ(reader.Wait().completion_tokens, 0);
  EXPECT_EQ(f.metrics().prompt_tokens.Value(), 0);
  EXPECT_TRUE(f.AtBaseLine());
  f.disk().OpenGate();
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(f.Generate(Prompts()[i]), Reference()[i]);
  }
  EXPECT_EQ(f.metrics().expert_slots_loading.Value(), 0);
  EXPECT_TRUE(f.AtBaseLine());
}

TEST(EngineOffload, ASlowDiskCostsTimeAndNothingElse) {
  Reference();
  OffloadEngine f(8, {}, [](ModelOptions& options) {
    options.io_limit = int64_t{32} << 20;
    options.prefetch = "on";
  });
  EXPECT_EQ(f.Generate(Prompts()[0]), Reference()[0]);
  EXPECT_GT(f.metrics().stall_seconds_prefill.Value() +
                f.metrics().stall_seconds_decode.Value(),
            0);
  EXPECT_TRUE(f.AtBaseLine());
}

// A router applied a layer early tells far more than popularity does; with the
// sign of its margins turned, or those of another layer, it would tell less.
TEST(EngineOffload, RoutersAppliedEarlyPredictTheNextLayer) {
  OffloadEngine f(8, {}, [](ModelOptions& options) {
    options.prefetch = "on";
    options.prefetch_horizon = 2;
  });
  for (const auto& prompt : Prompts()) f.Generate(prompt, 80);
  const auto value = [&](prometheus::Family<prometheus::Gauge>& family,
                         const char* predictor, const char* horizon) {
    return family.Add({{"predictor", predictor}, {"horizon", horizon}}).Value();
  };
  prometheus::Family<prometheus::Gauge>& precision =
      f.metrics().predictor_precision;
  prometheus::Family<prometheus::Gauge>& recall = f.metrics().predictor_recall;
  for (const char* horizon : {"1", "2"}) {
    EXPECT_GT(value(precision, "router", horizon),
              value(precision, "popularity", horizon) + 0.2);
    EXPECT_GT(value(recall, "router", horizon), 0.5);
  }
  // A model of four of 32: chance is 0.125.
  EXPECT_GT(value(precision, "router", "1"), 0.65);
  EXPECT_GT(value(precision, "router", "1"), value(precision, "router", "2"));
}

TEST(EngineOffload, ThePolicyOfTheOptionsIsTheCaches) {
  const auto ratio = [](OffloadEngine& f, const char* rule) {
    return f.metrics().oracle_hits.Add({{"rule", rule}}).Value();
  };
  std::set<double> loads;
  for (const char* policy : {"lru", "lfu", "crf"}) {
    OffloadEngine f(8, {}, [&](ModelOptions& options) {
      options.policy = policy;
      options.prefetch = "off";
      options.oracle_window = 64;
    });
    // Drawn, since what is likeliest repeats itself.
    Request request = Greedy(Prompts()[0], 150);
    request.sampling = {.temperature = 1, .seed = 5};
    Reader reader;
    ASSERT_TRUE(f.Submit(std::move(request), reader).ok());
    EXPECT_TRUE(reader.Wait().status.ok());
    // The published comparison names the rule: LRU is LRU, and the others not.
    EXPECT_EQ(ratio(f, "live") == ratio(f, "lru"), policy == std::string("lru"))
        << policy << " hit " << ratio(f, "live") << ", LRU " << ratio(f, "lru");
    EXPECT_LE(ratio(f, "live"), ratio(f, "belady"));
    f.engine().Stop();
    const CacheSnapshot snapshot = f.engine().cache_snapshot();
    EXPECT_GT(snapshot.decode.lookups(), 0u);
    loads.insert(static_cast<double>(snapshot.loads));
  }
  EXPECT_EQ(loads.size(), 3u) << "each has victims of its own";
}

}  // namespace
}  // namespace bullpen
