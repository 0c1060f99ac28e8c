// Loading, encoding and decoding of tokenizers, one thread, CPU time.
//
//   bench_tokenizer TEXT DIR... [Google Benchmark's flags]
//
// TEXT is encoded as a whole; besides, 100 kB each of what makes careless
// tokenizers quadratic.
#include <cstdio>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "engine/model/tokenizer.h"

namespace bullpen {
namespace {

constexpr size_t kHostileBytes = 100'000;

std::string Repeat(std::string_view unit) {
  std::string text;
  while (text.size() < kHostileBytes) text += unit;
  return text;
}

std::vector<std::pair<std::string, std::string>> HostileTexts() {
  return {{"letter", Repeat("a")},          {"capital", Repeat("A")},
          {"space", Repeat(" ")},           {"newline", Repeat("\n")},
          {"mark", Repeat("\u0301\u0323")}, {"ideograph", Repeat("\u4e2d")},
          {"digit", Repeat("0")},           {"metaspace", Repeat("\u2581")}};
}

void Load(benchmark::State& state, const std::string& dir) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(Tokenizer::FromDirectory(dir));
  }
}

void Encode(benchmark::State& state, const Tokenizer& tokenizer,
            const std::string& text) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(tokenizer.Encode(text, false));
  }
  state.SetBytesProcessed(state.iterations() *
                          static_cast<int64_t>(text.size()));
}

void Stream(benchmark::State& state, const Tokenizer& tokenizer,
            const std::string& text) {
  const std::vector<int32_t> ids = tokenizer.Encode(text, false);
  for (auto _ : state) {
    DecodeStream stream(tokenizer, true);
    for (const int32_t id : ids) benchmark::DoNotOptimize(stream.Push(id));
  }
  state.SetItemsProcessed(state.iterations() *
                          static_cast<int64_t>(ids.size()));
}

int Main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (argc < 3) {
    std::fputs("usage: bench_tokenizer TEXT DIR...\n", stderr);
    return 2;
  }
  std::ifstream file(argv[1], std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  std::vector<std::unique_ptr<Tokenizer>> tokenizers;
  for (const std::string& dir :
       std::vector<std::string>(argv + 2, argv + argc)) {
    auto tokenizer = Tokenizer::FromDirectory(dir);
    if (!tokenizer.ok()) {
      std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
      return 1;
    }
    const Tokenizer& made = *tokenizers.emplace_back(*std::move(tokenizer));
    benchmark::RegisterBenchmark((dir + "/load").c_str(), Load, dir)
        ->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark((dir + "/encode").c_str(), Encode,
                                 std::cref(made), text)
        ->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark((dir + "/stream").c_str(), Stream,
                                 std::cref(made), text)
        ->Unit(benchmark::kMillisecond);
    for (const auto& [name, hostile] : HostileTexts()) {
      benchmark::RegisterBenchmark((dir + "/hostile/" + name).c_str(), Encode,
                                   std::cref(made), hostile)
          ->Unit(benchmark::kMillisecond);
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace bullpen

int main(int argc, char** argv) { return bullpen::Main(argc, argv); }
