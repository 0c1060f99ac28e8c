#include "tools/bench/offload_command.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/experts/limits.h"
#include "engine/experts/replay.h"
#include "engine/experts/trace_file.h"
#include "engine/model/machine_rates.h"
#include "nlohmann/json.hpp"
#include "spdlog/spdlog.h"
#include "tools/bench/report.h"
#include "tools/load_model.h"
#include "tools/write_output.h"

namespace bullpen {
namespace {

int64_t PeakResidentBytes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

// What the simulator needs nobody's past for.
const std::map<std::string, PolicyKind> kReplayed = {{"crf", PolicyKind::kCrf},
                                                     {"lru", PolicyKind::kLru},
                                                     {"lfu", PolicyKind::kLfu}};

// Of the disk under `path`, as Linux has it set: it decides what reading
// through a mapping costs. Nothing where Linux does not say.
std::optional<int64_t> ReadAheadBytes(const std::filesystem::path& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return std::nullopt;
  const std::string device = absl::StrCat("/sys/dev/block/", major(info.st_dev),
                                          ":", minor(info.st_dev));
  // Of a partition the disk that it is on tells.
  for (const char* const queue : {"/queue", "/../queue"}) {
    std::ifstream file(device + queue + "/read_ahead_kb");
    if (int64_t kilobytes = 0; file >> kilobytes) return kilobytes * 1024;
  }
  return std::nullopt;
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

OffloadCommand::OffloadCommand(CLI::App& bench, const Environment& environment,
                               Command& chosen) {
  flags_.cache_dir = environment.cache_dir;
  flags_.max_sequences = 1;
  flags_.context = 4096;
  CLI::App* offload = bench.add_subcommand(
      "offload", "Decode as a recorded trace routes, whatever the model says");
  offload
      ->add_option("MODEL", model_, "such as shape writes; packed on first use")
      ->required();
  offload->add_option("--route-from", trace_, "the trace that routes")
      ->required();
  offload->add_option("--slots-per-layer", slots_, "0: as the memory allows")
      ->check(CLI::Range(0, kMaxExpertsPerLayer))
      ->capture_default_str();
  offload->add_option("--tokens", tokens_, "0: those of the trace, once")
      ->check(CLI::Range(0, 1 << 30))
      ->capture_default_str();
  offload
      ->add_option("--look-ahead-recall", look_ahead_recall_,
                   "imitate routers that show this share of the next layer's "
                   "experts ahead; 0: ask the model's")
      ->check(Between(0, 1))
      ->capture_default_str();
  offload->add_flag("--mmap", mapped_,
                    "read through a mapping and the page cache");
  offload->add_option("--json", json_, "also write the result to this file");
  AddFlags(*offload, flags_, kModelFlagsGroup);
  offload->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

nlohmann::ordered_json OffloadCommand::Result(const RoutingTrace& route,
                                              const RoutedResult& result,
                                              double disk_bytes_per_second,
                                              const Model& model) const {
  const double limit = static_cast<double>(flags_.io_limit.bytes_per_second);
  const double rate = limit > 0 ? std::min(limit, disk_bytes_per_second)
                                : disk_bytes_per_second;
  uint64_t lookups = 0;
  uint64_t hits = 0;
  for (const CacheSnapshot::Layer& layer : result.cache.layers) {
    lookups += layer.lookups;
    hits += layer.hits;
  }
  const int32_t slots = model.memory().slots.front();
  const double tokens = static_cast<double>(result.tokens);
  const double compute = result.seconds - result.cache.stall_seconds;
  const double moving = static_cast<double>(result.cache.bytes_loaded) / rate;
  const double bound = tokens / std::max(compute, moving);
  nlohmann::ordered_json object = {
      {"model", model_.string()},
      {"routing", "recorded, not the model's: " + trace_.string()},
      {"look_ahead",
       look_ahead_recall_ > 0
           ? absl::StrCat("imitated: ", look_ahead_recall_,
                          " of the next layer's experts, ", kRecallLostByLayer,
                          " less each layer further")
           : "the model's routers"},
      {"reads", mapped_ ? "mmap" : "direct"},
      {"policy", flags_.policy},
      {"prefetch", flags_.prefetch},
      {"slots_per_layer", slots},
      {"expert_slots", flags_.expert_slots},
      {"tokens", result.tokens},
      {"tokens_per_second", tokens / result.seconds},
      {"bound_tokens_per_second", bound},
      {"share_of_bound", tokens / result.seconds / bound},
      {"compute_us_per_layer",
       compute / tokens / static_cast<double>(route.layers()) * 1e6},
      {"stall_seconds", result.cache.stall_seconds},
      {"link_busy_seconds", result.cache.link_busy_seconds},
      {"bytes_loaded", result.cache.bytes_loaded},
      {"bytes_prefetched_in_vain", result.cache.transferred.prefetch_wasted},
      {"disk_bytes_per_second", disk_bytes_per_second},
      {"io_limit_bytes_per_second", limit},
      {"lookups", lookups},
      {"hits", hits},
      {"prefetched", result.cache.decode.prefetched},
      {"prefetched_late", result.cache.decode.prefetched_late},
      {"missed", result.cache.decode.missed},
      {"peak_resident_bytes", PeakResidentBytes()}};
  const auto policy = kReplayed.find(flags_.policy);
  if (policy != kReplayed.end() &&
      result.tokens * route.layers() == std::ssize(route.choices())) {
    const int32_t floor =
        flags_.layer_floor > 0 ? flags_.layer_floor : route.top_k();
    const bool shared = flags_.expert_slots == "shared";
    object["replay_hits"] =
        Replay(route, {.policy = {.kind = policy->second,
                                  .half_life_tokens = flags_.half_life},
                       .slots_per_layer = slots,
                       .layer_floor = shared ? std::min(floor, slots) : 0})
            .hits();
  }
  return object;
}

absl::Status OffloadCommand::Run() const {
  RETURN_IF_ERROR(RefuseInput("--json", json_, trace_));
  nlohmann::ordered_json report = NewReport("offload");
  ASSIGN_OR_RETURN(const RoutingTrace trace, ReadTrace(trace_));
  ASSIGN_OR_RETURN(const std::filesystem::path dir,
                   FindPacked(model_, flags_.cache_dir));
  ASSIGN_OR_RETURN(PackedModel packed, PackedModel::Open(dir));
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
  ASSIGN_OR_RETURN(
      const RoutedResult result,
      RunRouted(*model, route,
                {.tokens = tokens, .look_ahead_recall = look_ahead_recall_}));
  if (const auto bytes = ReadAheadBytes(dir); mapped_ && bytes.has_value()) {
    report["read_ahead_bytes"] = *bytes;
  }
  report.update(Result(route, result, rates.disk_bytes_per_second, *model));
  std::printf("%s\n", report.dump(1).c_str());
  return WriteReport(report, json_);
}

}  // namespace bullpen
