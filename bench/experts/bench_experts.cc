// What the expert cache's book-keeping costs the engine thread, per decoded
// token of a whole model: no blobs are moved.

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "base/check.h"
#include "base/huge_buffer.h"
#include "base/xxh3.h"
#include "benchmark/benchmark.h"
#include "engine/experts/cache.h"
#include "engine/experts/oracle_window.h"
#include "engine/experts/request_follower.h"
#include "engine/experts/slot_pool.h"

namespace bullpen {
namespace {

constexpr int32_t kWindow = 256;

struct Shape {
  int32_t layers;
  int32_t experts;
  int32_t k;
};

// The default model, Qwen3-30B-A3B, and what /v1/experts must serve.
constexpr Shape kShapes[] = {{8, 32, 4}, {48, 128, 8}, {60, 256, 8}};

ExpertCatalog Catalog(const Shape& shape) {
  ExpertCatalog catalog;
  catalog.layers.resize(static_cast<size_t>(shape.layers));
  for (ExpertCatalog::Layer& layer : catalog.layers) {
    layer.blob_bytes = 4096;
    layer.experts.resize(static_cast<size_t>(shape.experts));
  }
  return catalog;
}

// The experts of `tokens` tokens of one layer: half of a token's are those of
// the token before, as recorded routing has it within a few per cent.
std::vector<std::vector<int32_t>> Tokens(const Shape& shape, int32_t tokens) {
  std::mt19937 random(7);
  std::vector<std::vector<int32_t>> all(static_cast<size_t>(tokens));
  std::vector<int32_t> last;
  for (std::vector<int32_t>& token : all) {
    std::ranges::shuffle(last, random);
    token.assign(last.begin(), last.begin() + std::ssize(last) / 2);
    while (std::ssize(token) < shape.k) {
      const int32_t expert =
          static_cast<int32_t>(random() % static_cast<uint32_t>(shape.experts));
      if (std::ranges::count(token, expert) == 0) token.push_back(expert);
    }
    std::ranges::sort(token);
    last = token;
  }
  return all;
}

// A quarter of the experts have slots.
void OracleWindowPerToken(benchmark::State& state) {
  const Shape& shape = kShapes[state.range(0)];
  const ExpertCatalog catalog = Catalog(shape);
  Metrics metrics;
  OracleWindow window(catalog, kWindow, metrics);
  LayerSlots slots(shape.experts, shape.experts / 4, {});
  for (int32_t slot = 0; slot < slots.slots(); ++slot) {
    slots.FinishLoad(slots.ClaimForGuess(slot), /*ok=*/true);
  }
  const auto tokens = Tokens(shape, 4 * kWindow);
  size_t token = 0;
  for (auto _ : state) {
    const std::vector<int32_t>& experts = tokens[token++ % tokens.size()];
    for (int32_t layer = 0; layer < shape.layers; ++layer) {
      window.BeginStep(layer, slots);
      window.Record(
          {.layer = layer, .experts = experts, .tokens = 1, .hits = 0});
      window.Settle(layer, slots.slots());
    }
  }
  state.SetItemsProcessed(state.iterations() * shape.layers);
}
BENCHMARK(OracleWindowPerToken)->DenseRange(0, 2)->MinTime(1);

// Giving slots to what a token misses, an item each: from its own layer
// (shared 0), or from any layer that has more than the floor. A quarter of the
// experts have slots.
void ClaimSlots(benchmark::State& state) {
  const Shape& shape = kShapes[state.range(0)];
  const int32_t slots = shape.experts / 4;
  const int32_t floor = state.range(1) > 0 ? shape.k : slots;
  const std::vector<SlotPool::LayerShape> layers(
      static_cast<size_t>(shape.layers),
      {.experts = shape.experts, .slots = slots, .floor = floor});
  SlotPool pool(layers, {});
  const auto tokens = Tokens(shape, 1024);
  std::vector<ExpertKey> missed;
  size_t token = 0;
  int64_t claims = 0;
  for (auto _ : state) {
    const std::vector<int32_t>& experts = tokens[token++ % tokens.size()];
    for (int32_t l = 0; l < shape.layers; ++l) {
      LayerSlots& layer = pool.layer(l);
      pool.BeginStep(l, 1, Phase::kDecode);
      missed.clear();
      for (const int32_t expert : experts) {
        const int32_t slot = layer.Use(expert, 1);
        if (slot < 0) {
          missed.push_back({.layer = l, .expert = expert});
        } else {
          layer.Lease(slot);
        }
      }
      for (const ExpertKey& key : missed) {
        layer.FinishLoad(pool.ClaimForDemand(key), /*ok=*/true);
      }
      claims += std::ssize(missed);
      for (const int32_t expert : experts) layer.Release(layer.Find(expert));
    }
  }
  state.SetItemsProcessed(claims);
}
BENCHMARK(ClaimSlots)
    ->ArgsProduct({{0, 1, 2}, {0, 1}})
    ->ArgNames({"shape", "shared"});

RoutingShape Routing(const Shape& shape) {
  RoutingShape routing;
  routing.layers.assign(static_cast<size_t>(shape.layers),
                        {.experts = shape.experts, .top_k = shape.k});
  return routing;
}

// Following eight requests that decode together, for one step of them.
void FollowRequestsPerStep(benchmark::State& state) {
  constexpr int32_t kRequests = 8;
  const Shape& shape = kShapes[state.range(0)];
  RequestFollower follower(Routing(shape), 64);
  std::vector<RequestRows> requests;
  std::vector<int32_t> chosen;
  const auto tokens = Tokens(shape, kRequests);
  for (int32_t i = 0; i < kRequests; ++i) {
    requests.push_back(
        {.request = i, .first_row = i, .rows = 1, .begins = true});
    chosen.insert(chosen.end(), tokens[i].begin(), tokens[i].end());
  }
  for (auto _ : state) {
    follower.BeginStep(requests, Phase::kDecode);
    for (int32_t layer = 0; layer < shape.layers; ++layer) {
      follower.Observe(layer, chosen);
    }
    for (RequestRows& request : requests) request.begins = false;
  }
  state.SetItemsProcessed(state.iterations() * kRequests);
}
BENCHMARK(FollowRequestsPerStep)->DenseRange(0, 2);

// Comparing one prompt with 64 past requests, once for a request.
void MatchRequest(benchmark::State& state) {
  const Shape& shape = kShapes[state.range(0)];
  ActivationStore past(Routing(shape), 64);
  const auto tokens = Tokens(shape, 65 * 32);
  ActivationMatrix last(Routing(shape));
  for (size_t request = 0; request < 65; ++request) {
    last = ActivationMatrix(Routing(shape));
    for (size_t token = request * 32; token < (request + 1) * 32; ++token) {
      for (int32_t layer = 0; layer < shape.layers; ++layer) {
        last.Add(layer, tokens[token]);
      }
    }
    if (request < 64) past.Add(last);
  }
  for (auto _ : state) benchmark::DoNotOptimize(past.Match(last));
}
BENCHMARK(MatchRequest)->DenseRange(0, 2)->Unit(benchmark::kMicrosecond);

// Blobs of zeros.
class ZeroReader : public BlobReader {
 public:
  absl::Status Read(int32_t, int64_t, std::span<std::byte> out) override {
    std::ranges::fill(out, std::byte{0});
    return absl::OkStatus();
  }
};

// What GET /v1/experts shows, taken every 0.2 s while there is work; every
// expert is resident.
void Snapshot(benchmark::State& state) {
  const Shape& shape = kShapes[state.range(0)];
  ExpertCatalog catalog = Catalog(shape);
  const std::vector<std::byte> zeros(4096);
  for (ExpertCatalog::Layer& layer : catalog.layers) {
    for (ExpertLocation& place : layer.experts) {
      place.checksum = XXH3_64bits(zeros.data(), zeros.size());
    }
  }
  Metrics metrics;
  ZeroReader reader;
  TransferQueue transfers(reader, {});
  const std::vector<int32_t> slots(catalog.layers.size(), shape.experts);
  // A half-life of its own, so that scores are decayed ones.
  const HugeBuffer arena =
      *HugeBuffer::Allocate(ExpertCache::ArenaBytes(catalog, slots));
  ExpertCache cache(catalog, {.slots = slots, .half_life_tokens = 16},
                    arena.span(), transfers, metrics);
  std::vector<int32_t> all(static_cast<size_t>(shape.experts));
  std::iota(all.begin(), all.end(), 0);
  const std::vector<int32_t> counts(all.size(), 1);
  for (int32_t layer = 0; layer < shape.layers; ++layer) {
    auto step = cache.Acquire(layer, all, counts, 1, Phase::kDecode);
    while (!step.Next().empty()) {
    }
  }
  for (auto _ : state) benchmark::DoNotOptimize(cache.Snapshot());
}
BENCHMARK(Snapshot)->DenseRange(0, 2)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace bullpen

BENCHMARK_MAIN();
