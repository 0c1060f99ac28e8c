// What the expert cache's book-keeping costs the engine thread, per decoded
// token of a whole model: no blobs are moved.

#include <algorithm>
#include <random>
#include <vector>

#include "benchmark/benchmark.h"
#include "engine/experts/oracle_window.h"

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
      window.Record(
          {.layer = layer, .experts = experts, .tokens = 1, .hits = 0}, slots);
      window.Settle(layer, slots.slots());
    }
  }
  state.SetItemsProcessed(state.iterations() * shape.layers);
}
BENCHMARK(OracleWindowPerToken)->DenseRange(0, 2)->MinTime(1);

}  // namespace
}  // namespace bullpen

BENCHMARK_MAIN();
