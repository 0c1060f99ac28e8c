// Kernel benchmarks: each line's time is the best of many short slices; GB/s
// counts weights (or cache) read, GFLOP/s two per multiply-add, and the
// percentages are of the roofs that the same program measured first.

#include <sys/sysinfo.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/huge_buffer.h"
#include "base/strings.h"
#include "bench/kernels/roofs.h"
#include "benchmark/benchmark.h"
#include "kernels/ops.h"

namespace bullpen::bench {
namespace {

using kernels::DType;
using kernels::Isa;
using kernels::Ops;
using kernels::Stream;

WorkerPool& Pool(int threads) {
  static std::map<int, std::unique_ptr<WorkerPool>> pools;
  // One at a time: the workers of another would spin on the same CPUs.
  if (!pools.contains(threads)) {
    pools.clear();
    pools[threads] = std::make_unique<WorkerPool>(threads);
  }
  return *pools[threads];
}

double DramRoof(int threads) {
  static std::map<int, double> roofs;
  if (!roofs.contains(threads)) roofs[threads] = DramReadRoof(Pool(threads));
  return roofs[threads];
}

double FlopRoof(Isa isa, int threads) {
  static std::map<std::pair<Isa, int>, double> roofs;
  const std::pair<Isa, int> key(isa, threads);
  if (!roofs.contains(key)) roofs[key] = FmaRoof(isa, Pool(threads));
  return roofs[key];
}

// Where an op runs.
struct Place {
  Isa isa;
  int threads;

  const Ops& ops() const { return kernels::CpuOps(isa); }
  Stream stream() const { return {.pool = &Pool(threads)}; }
  std::string name() const {
    return absl::StrCat("/", Absl(ops().name), "/threads:", threads);
  }
};

// What one call reads and computes.
struct Cost {
  double bytes = 0;
  double flops = 0;
};

void Report(benchmark::State& state, const Place& place, const Cost& cost,
            double seconds) {
  state.SetIterationTime(seconds);
  if (cost.bytes > 0) {
    state.counters["GB/s"] = cost.bytes / seconds * 1e-9;
    state.counters["%dram"] =
        100 * cost.bytes / seconds / DramRoof(place.threads);
  }
  if (cost.flops > 0) {
    state.counters["GFLOP/s"] = cost.flops / seconds * 1e-9;
    state.counters["%fma"] =
        100 * cost.flops / seconds / FlopRoof(place.isa, place.threads);
  }
}

template <typename Body>
void Register(const std::string& name, Body body) {
  benchmark::RegisterBenchmark(name.c_str(),
                               [body](benchmark::State& state) {
                                 for (auto _ : state) body(state);
                               })
      ->Iterations(1)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

// Random bf16-like bits in every type: finite, small numbers.
HugeBuffer Weights(DType dtype, int64_t bytes) {
  absl::StatusOr<HugeBuffer> buffer = HugeBuffer::Allocate(bytes);
  CHECK(buffer.ok()) << buffer.status().message();
  uint32_t state = 1;
  const int64_t elements = bytes / kernels::DTypeBytes(dtype);
  for (int64_t i = 0; i < elements; ++i) {
    state = state * 1664525 + 1013904223;
    const float value = static_cast<float>(state >> 8) * 0x1p-24f - 0.5f;
    if (dtype == DType::kF32) {
      reinterpret_cast<float*>(buffer->data())[i] = value;
    } else {
      reinterpret_cast<uint16_t*>(buffer->data())[i] =
          kernels::FromFloat(value, dtype);
    }
  }
  return *std::move(buffer);
}

struct MatMulShape {
  DType dtype;
  int32_t tokens;
  int32_t rows;
  int32_t cols;
  bool cold;  // a new matrix each call, out of more than the caches hold
};

void RunMatMul(benchmark::State& state, const Place& place,
               const MatMulShape& shape) {
  const int64_t bytes =
      kernels::PanelBytes(shape.dtype, shape.rows, shape.cols);
  const int64_t copies =
      shape.cold ? std::max<int64_t>(1, (int64_t{256} << 20) / bytes) : 1;
  const HugeBuffer weights = Weights(shape.dtype, bytes * copies);
  std::vector<float> x(int64_t{shape.tokens} * shape.cols, 0.5f);
  std::vector<float> y(int64_t{shape.tokens} * shape.rows);
  kernels::MatMulArgs args{
      .x = x.data(),
      .x_stride = shape.cols,
      .w = {.dtype = shape.dtype, .rows = shape.rows, .cols = shape.cols},
      .y = y.data(),
      .y_stride = shape.rows,
      .tokens = shape.tokens};
  Stream stream = place.stream();
  int64_t copy = 0;
  const double flops = 2.0 * shape.tokens * shape.rows * shape.cols;
  const double seconds = BestSeconds(flops < 1e7 ? 8 : 1, [&] {
    args.w.data = weights.data() + copy * bytes;
    copy = (copy + 1) % copies;
    CHECK(place.ops().matmul(args, stream).ok());
  });
  Report(state, place, {.bytes = static_cast<double>(bytes), .flops = flops},
         seconds);
}

// `active` experts of one layer with `tokens` rows each.
struct FfnShape {
  DType dtype;
  int32_t dim;
  int32_t inner;
  int32_t active;
  int32_t tokens;
  int32_t experts;  // to rotate through
};

void RunFfn(benchmark::State& state, const Place& place,
            const FfnShape& shape) {
  const kernels::ExpertShape expert{
      .dtype = shape.dtype, .dim = shape.dim, .inner = shape.inner};
  const HugeBuffer weights =
      Weights(shape.dtype, expert.bytes() * shape.experts);
  const int32_t entries = shape.active * shape.tokens;
  std::vector<float> x(int64_t{shape.tokens} * shape.dim, 0.5f);
  std::vector<float> y(int64_t{entries} * shape.dim);
  std::vector<float> scratch(int64_t{entries} * 2 * shape.inner);
  std::vector<int32_t> x_row(entries), slot(entries);
  std::vector<kernels::ExpertRows> groups(shape.active);
  for (int32_t g = 0; g < shape.active; ++g) {
    groups[g] = {.begin = g * shape.tokens, .end = (g + 1) * shape.tokens};
    for (int32_t t = 0; t < shape.tokens; ++t) {
      x_row[g * shape.tokens + t] = t;
      slot[g * shape.tokens + t] = g * shape.tokens + t;
    }
  }
  const kernels::GroupedFfnArgs args{.x = x.data(),
                                     .x_stride = shape.dim,
                                     .shape = expert,
                                     .groups = groups.data(),
                                     .group_count = shape.active,
                                     .x_row = x_row.data(),
                                     .slot = slot.data(),
                                     .y = y.data(),
                                     .scratch = scratch.data()};
  Stream stream = place.stream();
  int32_t next = 0;
  const double seconds = BestSeconds(shape.tokens == 1 ? 8 : 1, [&] {
    for (kernels::ExpertRows& group : groups) {
      group.blob = weights.data() + next * expert.bytes();
      next = (next + 1) % shape.experts;
    }
    CHECK(place.ops().grouped_ffn(args, stream).ok());
  });
  Report(state, place,
         {.bytes = static_cast<double>(expert.bytes() * shape.active),
          .flops = 6.0 * entries * shape.dim * shape.inner},
         seconds);
}

struct AttentionShape {
  DType dtype;
  int32_t rows;
  int32_t context;  // with the rows
  int32_t heads;
  int32_t kv_heads;
  int32_t dim;
};

void RunAttention(benchmark::State& state, const Place& place,
                  const AttentionShape& shape) {
  const int32_t blocks = (shape.context + 15) / 16;
  const int64_t block_bytes =
      kernels::KvBlockBytes(shape.dtype, shape.kv_heads, shape.dim, shape.dim);
  const HugeBuffer pool = Weights(shape.dtype, blocks * block_bytes);
  std::vector<int32_t> table(blocks);
  for (int32_t i = 0; i < blocks; ++i) table[i] = i;
  const kernels::KvSequence sequence{
      .blocks = table.data(),
      .rows = shape.rows,
      .first_position = shape.context - shape.rows};
  const int64_t width = int64_t{shape.heads} * shape.dim;
  std::vector<float> q(shape.rows * width, 0.1f), out(shape.rows * width);
  const int64_t stride =
      kernels::AttentionScratch(shape.context, shape.heads, shape.kv_heads);
  std::vector<float> scratch(stride * place.threads);
  const kernels::AttentionArgs args{.q = q.data(),
                                    .q_stride = width,
                                    .out = out.data(),
                                    .out_stride = width,
                                    .layer = {.base = pool.data(),
                                              .dtype = shape.dtype,
                                              .kv_heads = shape.kv_heads,
                                              .k_dim = shape.dim,
                                              .v_dim = shape.dim},
                                    .sequences = &sequence,
                                    .sequence_count = 1,
                                    .heads = shape.heads,
                                    .scale = 0.125f,
                                    .scratch = scratch.data(),
                                    .scratch_stride = stride};
  Stream stream = place.stream();
  const double seconds = BestSeconds(shape.rows == 1 ? 8 : 1, [&] {
    CHECK(place.ops().attention(args, stream).ok());
  });
  const double keys = shape.rows * (shape.context - (shape.rows - 1) / 2.0);
  Report(state, place,
         {.bytes = static_cast<double>(blocks * block_bytes),
          .flops = 4.0 * keys * shape.heads * shape.dim},
         seconds);
}

void RunNorm(benchmark::State& state, const Place& place, int32_t dim) {
  std::vector<float> x(dim, 0.5f), y(dim), weight(dim, 1.0f);
  const kernels::RmsNormArgs args{.x = x.data(),
                                  .x_stride = dim,
                                  .y = y.data(),
                                  .y_stride = dim,
                                  .weight = weight.data(),
                                  .tokens = 1,
                                  .dim = dim};
  Stream stream = place.stream();
  Report(state, place, {}, BestSeconds(64, [&] {
           CHECK(place.ops().rms_norm(args, stream).ok());
           benchmark::ClobberMemory();
         }));
}

void RunRoute(benchmark::State& state, const Place& place, int32_t experts,
              int32_t k) {
  std::vector<float> logits(experts), weights(k);
  std::vector<int32_t> chosen(k);
  for (int32_t e = 0; e < experts; ++e) {
    logits[e] = static_cast<float>(e * 37 % experts) / 8;
  }
  const kernels::RouteArgs args{.logits = logits.data(),
                                .tokens = 1,
                                .experts = experts,
                                .k = k,
                                .rule = {.renormalise = true},
                                .chosen = chosen.data(),
                                .weights = weights.data()};
  Stream stream = place.stream();
  Report(state, place, {}, BestSeconds(64, [&] {
           CHECK(place.ops().route(args, stream).ok());
           benchmark::ClobberMemory();
         }));
}

void RunBarrier(benchmark::State& state, int threads) {
  WorkerPool& pool = Pool(threads);
  state.SetIterationTime(BestSeconds(256, [&] {
    pool.ParallelFor(threads, 1,
                     [](int64_t, int64_t, int) { benchmark::ClobberMemory(); });
  }));
}

void RegisterMatMuls(const Place& place) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (int32_t tokens : {1, 2, 3, 4, 8, 16, 64, 256}) {
      const MatMulShape shape{dtype, tokens, 1024, 2048, tokens < 16};
      Register(
          absl::StrCat("matmul/", Absl(kernels::DTypeName(dtype)),
                       "/1024x2048/M:", tokens, place.name()),
          [=](benchmark::State& state) { RunMatMul(state, place, shape); });
    }
  }
}

// What one decoded token of the default model calls.
void RegisterDefaultModel(const Place& place) {
  const DType bf16 = DType::kBF16;
  for (const auto& [name, rows] :
       {std::pair("qkv", 512), {"o", 256}, {"router", 32}, {"head", 8192}}) {
    const int32_t count = rows;
    Register(absl::StrCat("default/", name, place.name()),
             [=](benchmark::State& state) {
               RunMatMul(state, place, {bf16, 1, count, 256, false});
             });
  }
  for (int32_t tokens : {1, 8, 64}) {
    Register(absl::StrCat("default/experts/M:", tokens, place.name()),
             [=](benchmark::State& state) {
               RunFfn(state, place,
                      {bf16, 256, 64, tokens == 1 ? 4 : 32, tokens, 256});
             });
  }
  for (int32_t context : {64, 512, 4096}) {
    Register(absl::StrCat("default/attention/context:", context, place.name()),
             [=](benchmark::State& state) {
               RunAttention(state, place, {DType::kF32, 1, context, 4, 2, 64});
             });
  }
  Register("default/rms_norm" + place.name(),
           [=](benchmark::State& state) { RunNorm(state, place, 256); });
  Register("default/route" + place.name(),
           [=](benchmark::State& state) { RunRoute(state, place, 32, 4); });
}

// Shapes of Qwen3-30B-A3B.
void RegisterLargeModel(const Place& place) {
  for (int32_t tokens : {1, 4, 32}) {
    Register(absl::StrCat("qwen3_30b/experts/M:", tokens, place.name()),
             [=](benchmark::State& state) {
               RunFfn(state, place, {DType::kBF16, 2048, 768, 2, tokens, 32});
             });
  }
  for (DType dtype : {DType::kF32, DType::kF16}) {
    for (int32_t rows : {1, 16}) {
      Register(
          absl::StrCat("qwen3_30b/attention/", Absl(kernels::DTypeName(dtype)),
                       "/rows:", rows, "/context:2048", place.name()),
          [=](benchmark::State& state) {
            RunAttention(state, place, {dtype, rows, 2048, 32, 4, 128});
          });
    }
  }
  Register("qwen3_30b/route" + place.name(),
           [=](benchmark::State& state) { RunRoute(state, place, 128, 8); });
}

void RegisterAll() {
  for (int threads : {1, 2}) {
    if (threads > get_nprocs()) continue;
    Register(absl::StrCat("roof/dram_read/threads:", threads),
             [=](benchmark::State& state) {
               state.counters["GB/s"] = DramRoof(threads) * 1e-9;
               state.SetIterationTime(0);
             });
    Register(absl::StrCat("roof/barrier/threads:", threads),
             [=](benchmark::State& state) { RunBarrier(state, threads); });
    for (Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
      if (!kernels::IsSupported(isa)) continue;
      const Place place{isa, threads};
      Register("roof/fma" + place.name(), [=](benchmark::State& state) {
        state.counters["GFLOP/s"] = FlopRoof(isa, threads) * 1e-9;
        state.SetIterationTime(0);
      });
      RegisterDefaultModel(place);
      RegisterMatMuls(place);
      RegisterLargeModel(place);
    }
  }
}

}  // namespace
}  // namespace bullpen::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  bullpen::bench::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
