#include "tools/bench_command.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "engine/experts/replay.h"
#include "engine/experts/trace_file.h"
#include "engine/model/machine_rates.h"
#include "nlohmann/json.hpp"
#include "spdlog/spdlog.h"
#include "tools/load_model.h"
#include "tools/progress.h"

namespace bullpen {
namespace {

int64_t PeakResidentBytes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

int64_t BytesOfSlots(const PackedModel& packed, int32_t slots) {
  int64_t bytes = 0;
  for (const ExpertCatalog::Layer& layer : packed.catalog().layers) {
    bytes +=
        std::min<int64_t>(slots, std::ssize(layer.experts)) * layer.blob_bytes;
  }
  return bytes;
}

}  // namespace

BenchCommand::BenchCommand(CLI::App& app, const Environment& environment,
                           Command& chosen) {
  flags_.cache_dir = environment.cache_dir;
  flags_.max_sequences = 1;
  flags_.context = 4096;
  CLI::App* bench = app.add_subcommand(
      "bench", "Benchmarks of offloading with recorded routing");
  bench->require_subcommand(1);

  CLI::App* shape = bench->add_subcommand(
      "shape", "Write a packed model of noise in the shapes of a real one");
  shape->add_option("SHAPE", shape_.shape, "whose shapes")
      ->check(CLI::IsMember(ShapedModels()))
      ->required();
  shape->add_option("-o,--output", target_, "the new directory")->required();
  shape->add_option("--layers", shape_.layers, "fewer layers; 0: all")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  shape
      ->add_option("--top-k", shape_.top_k,
                   "experts of a token, as the trace has them; 0: as the model")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  shape->add_option("--vocab", shape_.vocab, "size of the vocabulary")
      ->check(CLI::Range(16, 1 << 18))
      ->capture_default_str();
  shape
      ->add_option("--expert-type", shape_.expert_type,
                   "format of the experts: BF16, Q8_0, Q4_K ...")
      ->capture_default_str();
  shape->callback([this, &chosen] { chosen = [this] { return Shape(); }; });

  CLI::App* offload = bench->add_subcommand(
      "offload", "Decode as a recorded trace routes, whatever the model says");
  offload->add_option("MODEL", model_, "packed model, such as shape writes")
      ->required();
  offload->add_option("--route-from", trace_, "the trace that routes")
      ->required();
  offload->add_option("--slots-per-layer", slots_, "0: as the memory allows")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  offload->add_option("--tokens", tokens_, "0: those of the trace, once")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  offload->add_flag("--mmap", mapped_,
                    "read through a mapping and the page cache");
  AddFlags(*offload, flags_, kModelFlagsGroup);
  offload->callback([this, &chosen] { chosen = [this] { return Offload(); }; });
}

absl::Status BenchCommand::Shape() const {
  Progress progress("writing " + target_.string());
  ShapedModelOptions options = shape_;
  options.progress = [&progress](int64_t done, int64_t total) {
    progress.Update(done, total);
  };
  return WriteShapedModel(options, target_);
}

void BenchCommand::Report(const RoutingTrace& route, const RoutedResult& result,
                          double disk_bytes_per_second,
                          const Model& model) const {
  uint64_t lookups = 0;
  uint64_t hits = 0;
  for (const CacheSnapshot::Layer& layer : result.cache.layers) {
    lookups += layer.lookups;
    hits += layer.hits;
  }
  const int32_t slots = model.memory().slots.front();
  const double tokens = static_cast<double>(result.tokens);
  const double compute = result.seconds - result.cache.stall_seconds;
  const double moving =
      static_cast<double>(result.cache.bytes_loaded) / disk_bytes_per_second;
  const double bound = tokens / std::max(compute, moving);
  nlohmann::ordered_json object = {
      {"routing", "recorded, not the model's: " + trace_.string()},
      {"reads", mapped_ ? "mmap" : "direct"},
      {"slots_per_layer", slots},
      {"tokens", result.tokens},
      {"tokens_per_second", tokens / result.seconds},
      {"bound_tokens_per_second", bound},
      {"share_of_bound", tokens / result.seconds / bound},
      {"compute_us_per_layer",
       compute / tokens / static_cast<double>(route.layers()) * 1e6},
      {"stall_seconds", result.cache.stall_seconds},
      {"bytes_loaded", result.cache.bytes_loaded},
      {"disk_bytes_per_second", disk_bytes_per_second},
      {"lookups", lookups},
      {"hits", hits},
      {"peak_resident_bytes", PeakResidentBytes()}};
  if (result.tokens * route.layers() == std::ssize(route.choices())) {
    const ReplayReport replay = Replay(route, {.slots_per_layer = slots});
    object["replay_hits"] = replay.hits();
  }
  std::printf("%s\n", object.dump(1).c_str());
}

absl::Status BenchCommand::Offload() const {
  ASSIGN_OR_RETURN(const RoutingTrace trace, ReadTrace(trace_));
  ASSIGN_OR_RETURN(PackedModel packed, PackedModel::Open(model_));
  ASSIGN_OR_RETURN(const RoutingTrace route, RouteFor(trace, packed.config()));
  ASSIGN_OR_RETURN(ModelOptions options, ToModelOptions(flags_));
  if (slots_ > 0) options.memory.expert_bytes = BytesOfSlots(packed, slots_);
  ASSIGN_OR_RETURN(const MachineRates rates,
                   MeasureRates(packed, std::max(options.threads, 1), "auto"));
  std::unique_ptr<BlobReader> reader;
  if (mapped_) {
    ASSIGN_OR_RETURN(reader, OpenMappedFiles(packed.catalog().files));
  }
  Metrics metrics;
  ASSIGN_OR_RETURN(
      const std::unique_ptr<Model> model,
      Model::Load(std::move(packed), options, metrics, std::move(reader)));
  const int32_t tokens =
      tokens_ > 0
          ? tokens_
          : static_cast<int32_t>(std::ssize(route.choices())) / route.layers();
  spdlog::info("{} tokens, routed by {}", tokens, trace_.string());
  ASSIGN_OR_RETURN(const RoutedResult result, RunRouted(*model, route, tokens));
  Report(route, result, rates.disk_bytes_per_second, *model);
  return absl::OkStatus();
}

}  // namespace bullpen
