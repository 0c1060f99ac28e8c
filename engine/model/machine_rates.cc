#include "engine/model/machine_rates.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/huge_buffer.h"
#include "base/placement.h"
#include "base/status.h"
#include "base/worker_pool.h"
#include "engine/experts/transfer.h"
#include "kernels/ops.h"

namespace bullpen {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr double kDiskSeconds = 0.8;
constexpr double kComputeSeconds = 0.4;
// More than the last-level cache of most machines, so that decoding comes from
// memory as it does when the model runs.
constexpr int64_t kArenaBytes = int64_t{256} << 20;
constexpr int32_t kQueueDepth = 4;

double Since(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

// The experts of the first layer that has most bytes in them.
int32_t LargestLayer(const PackedModel& model) {
  const auto& layers = model.catalog().layers;
  const auto bytes = [](const ExpertCatalog::Layer& layer) {
    return layer.blob_bytes * static_cast<int64_t>(layer.experts.size());
  };
  return static_cast<int32_t>(std::ranges::max_element(layers, {}, bytes) -
                              layers.begin());
}

class Measurement {
 public:
  Measurement(const PackedModel& model, HugeBuffer arena, BlobReader& reader)
      : layer_(LargestLayer(model)),
        source_(model.catalog().layers[layer_]),
        shape_(model.expert_shape(layer_)),
        arena_(std::move(arena)),
        transfers_(reader, TransferConfig{}) {}

  static int64_t ArenaBytes(const PackedModel& model) {
    const int64_t blob = model.catalog().layers[LargestLayer(model)].blob_bytes;
    return std::max<int64_t>(kArenaBytes / blob, kQueueDepth) * blob;
  }

  // Fills the arena with experts in random order, again and again.
  absl::StatusOr<double> Disk() {
    std::mt19937 random(1);
    std::vector<TransferResult> results;
    const SteadyClock::time_point start = SteadyClock::now();
    int64_t bytes = 0;
    int64_t next = 0;
    while (next < slots() || Since(start) < kDiskSeconds) {
      while (transfers_.under_way() < kQueueDepth) {
        RETURN_IF_ERROR(transfers_.Submit(
            {.ticket = static_cast<uint64_t>(next),
             .source = source_.experts[random() % source_.experts.size()],
             .target = arena_.data() + next % slots() * source_.blob_bytes,
             .bytes = source_.blob_bytes}));
        ++next;
      }
      RETURN_IF_ERROR(Take(results, bytes));
    }
    while (transfers_.under_way() > 0) RETURN_IF_ERROR(Take(results, bytes));
    return static_cast<double>(bytes) / Since(start);
  }

  absl::StatusOr<double> Compute(const kernels::Ops& ops, WorkerPool& pool,
                                 int32_t rows) {
    kernels::Stream stream;
    stream.pool = &pool;
    std::vector<float> x(static_cast<size_t>(rows) * shape_.dim, 0.5f);
    std::vector<float> y(x.size());
    std::vector<float> scratch(static_cast<size_t>(rows) * 2 * shape_.inner);
    std::vector<std::byte> codes(
        static_cast<size_t>(rows * shape_.code_row_bytes()));
    std::vector<int32_t> index(static_cast<size_t>(rows));
    std::iota(index.begin(), index.end(), 0);
    const SteadyClock::time_point start = SteadyClock::now();
    int64_t experts = 0;
    while (experts < slots() || Since(start) < kComputeSeconds) {
      const kernels::ExpertRows group{
          .blob = arena_.data() + experts % slots() * source_.blob_bytes,
          .begin = 0,
          .end = rows};
      RETURN_IF_ERROR(ops.grouped_ffn({.x = x.data(),
                                       .x_stride = shape_.dim,
                                       .shape = shape_,
                                       .groups = &group,
                                       .group_count = 1,
                                       .x_row = index.data(),
                                       .slot = index.data(),
                                       .y = y.data(),
                                       .scratch = scratch.data(),
                                       .codes = codes.data()},
                                      stream));
      ++experts;
    }
    return static_cast<double>(experts * source_.blob_bytes) / Since(start);
  }

 private:
  int64_t slots() const { return arena_.size() / source_.blob_bytes; }

  absl::Status Take(std::vector<TransferResult>& results, int64_t& bytes) {
    results.clear();
    transfers_.Wait(results);
    for (const TransferResult& result : results) {
      RETURN_IF_ERROR(result.status);
      bytes += source_.blob_bytes;
    }
    return absl::OkStatus();
  }

  int32_t layer_;
  const ExpertCatalog::Layer& source_;
  kernels::ExpertShape shape_;
  HugeBuffer arena_;
  TransferQueue transfers_;
};

}  // namespace

absl::StatusOr<MachineRates> MeasureRates(const PackedModel& model,
                                          int32_t threads,
                                          const std::string& isa) {
  ASSIGN_OR_RETURN(const kernels::Isa parsed, kernels::ParseIsa(isa));
  ASSIGN_OR_RETURN(const std::unique_ptr<BlobReader> reader,
                   OpenBlobFiles(model.catalog().files));
  const Placement placement =
      Placement::Of(NumaTopology::Read(), NumaPolicy::kAuto, threads);
  ASSIGN_OR_RETURN(
      HugeBuffer arena,
      HugeBuffer::Allocate(Measurement::ArenaBytes(model),
                           HugeBuffer::Touch::kNow, placement.memory_nodes));
  Measurement measurement(model, std::move(arena), *reader);
  MachineRates rates;
  ASSIGN_OR_RETURN(rates.disk_bytes_per_second, measurement.Disk());
  WorkerPool pool(threads, placement.cpus);
  const kernels::Ops& ops = kernels::CpuOps(parsed);
  ASSIGN_OR_RETURN(rates.decode_bytes_per_second,
                   measurement.Compute(ops, pool, 1));
  ASSIGN_OR_RETURN(rates.prompt_bytes_per_second,
                   measurement.Compute(ops, pool, MachineRates::kPromptRows));
  return rates;
}

}  // namespace bullpen
