// What the quantisers reach on one CPU and on all: the limit that packing with
// --experts is measured against.

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "benchmark/benchmark.h"
#include "kernels/block_format.h"
#include "kernels/block_quantise.h"

namespace bullpen {
namespace {

// Values and blocks of one thread stay in its cache.
constexpr int64_t kValues = 1 << 16;

void Quantise(benchmark::State& state, const kernels::BlockFormat& format,
              bool weighted) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> values(kValues);
  for (float& value : values) value = normal(random);
  const std::vector<float> importance(weighted ? kValues : 0, 1.0f);
  std::vector<std::byte> blocks(static_cast<size_t>(format.RowBytes(kValues)));
  for (auto _ : state) {
    kernels::Quantise(format, values.data(), kValues, blocks.data(),
                      weighted ? importance.data() : nullptr);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * kValues);
}

void Register() {
  const int cpus = static_cast<int>(std::thread::hardware_concurrency());
  for (const kernels::BlockFormat& format : kernels::BlockFormats()) {
    if (format.plain || !kernels::CanQuantise(format)) continue;
    for (const bool weighted : {false, true}) {
      const std::string name =
          std::string(format.name) + (weighted ? "/calibrated" : "");
      auto* const bench = benchmark::RegisterBenchmark(
          name.c_str(), [&format, weighted](benchmark::State& state) {
            Quantise(state, format, weighted);
          });
      bench->UseRealTime()->Threads(1);
      if (cpus > 1) bench->Threads(cpus);
    }
  }
}

}  // namespace
}  // namespace bullpen

int main(int argc, char** argv) {
  bullpen::Register();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
