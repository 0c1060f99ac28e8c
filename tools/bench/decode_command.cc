#include "tools/bench/decode_command.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/metrics.h"
#include "base/placement.h"
#include "base/status.h"
#include "base/strings.h"
#include "base/worker_pool.h"
#include "spdlog/spdlog.h"
#include "tools/bench/engine_run.h"
#include "tools/bench/lockstep.h"
#include "tools/bench/machine.h"
#include "tools/bench/report.h"
#include "tools/load_model.h"

namespace bullpen {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kSliceSeconds = 0.002;
constexpr int kRoofSlices = 4;  // between two slices of decoding
// Steps before the end of the context; then they begin again.
constexpr int32_t kPositions = 32;
// Of a request to the engine, a third of it prompt.
constexpr int32_t kEngineContext = 96;

// One slice of decoding, and the memory's rate beside it.
struct Slice {
  double seconds = 0;
  double tokens = 0;
  double bytes = 0;
  double chosen = 0;
  double roof = 0;  // bytes per second

  double share() const { return bytes / seconds / roof; }
};

// Decodes until the slice is long enough.
absl::StatusOr<Slice> DecodeSlice(Lockstep& lockstep, int32_t sequences,
                                  int32_t context, int32_t& step) {
  Slice slice;
  while (slice.seconds < kSliceSeconds) {
    const int32_t span = std::min(kPositions, context);
    const int32_t position = context - span + step++ % span;
    absl::StatusOr<Lockstep::Step> done;
    slice.seconds += SecondsOf([&] { done = lockstep.Decode(position); });
    RETURN_IF_ERROR(done.status());
    slice.tokens += sequences;
    slice.bytes += static_cast<double>(done->bytes);
    slice.chosen += static_cast<double>(done->chosen);
  }
  return slice;
}

absl::StatusOr<std::vector<Slice>> Slices(Lockstep& lockstep, DramRoof& roof,
                                          WorkerPool& pool, double seconds,
                                          int32_t sequences, int32_t context) {
  constexpr int kLeastSlices = 5;
  std::vector<Slice> slices;
  int32_t step = 0;
  double spent = 0;
  while (spent < seconds || std::ssize(slices) < kLeastSlices) {
    absl::StatusOr<Slice> slice;
    spent += SecondsOf(
        [&] { slice = DecodeSlice(lockstep, sequences, context, step); });
    RETURN_IF_ERROR(slice.status());
    for (int i = 0; i < kRoofSlices; ++i) {
      slice->roof = std::max(slice->roof, roof.Slice(pool));
    }
    slices.push_back(*slice);
  }
  return slices;
}

// The best slice against the best of the memory, and the median of what each
// slice reached of the memory's rate beside it.
Json Line(std::vector<Slice> slices, int32_t sequences, int32_t layers) {
  const Slice best = *std::ranges::max_element(
      slices, {}, [](const Slice& s) { return s.tokens / s.seconds; });
  const double roof = std::ranges::max_element(slices, {}, &Slice::roof)->roof;
  const auto middle = slices.begin() + std::ssize(slices) / 2;
  std::ranges::nth_element(slices, middle, {}, &Slice::share);
  const double steps = best.tokens / sequences;
  return {{"sequences", sequences},
          {"tokens_per_second", best.tokens / best.seconds},
          {"step_ms", 1e3 * best.seconds / steps},
          {"bytes_per_token", best.bytes / best.tokens},
          {"experts_per_layer", best.chosen / steps / layers},
          {"bytes_per_second", best.bytes / best.seconds},
          {"dram_bytes_per_second", roof},
          {"roofline_tokens_per_second", roof / (best.bytes / best.tokens)},
          {"share_of_roofline", best.bytes / best.seconds / roof},
          {"median_share_of_pairs", middle->share()},
          {"slices", slices.size()}};
}

void Print(const Json& line) {
  std::printf("%9d %12.2f %10.3f %12.2f %8.2f %8.1f %8.1f %8.3f %8.3f\n",
              line["sequences"].get<int>(),
              line["tokens_per_second"].get<double>(),
              line["step_ms"].get<double>(),
              line["bytes_per_token"].get<double>() * 1e-6,
              line["experts_per_layer"].get<double>(),
              line["bytes_per_second"].get<double>() * 1e-9,
              line["dram_bytes_per_second"].get<double>() * 1e-9,
              line["share_of_roofline"].get<double>(),
              line["median_share_of_pairs"].get<double>());
  std::fflush(stdout);
}

}  // namespace

DecodeCommand::DecodeCommand(CLI::App& bench, const Environment& environment,
                             Command& chosen)
    : model_(environment.default_model) {
  flags_.cache_dir = environment.cache_dir;
  flags_.context = 512;
  CLI::App* decode = bench.add_subcommand(
      "decode", "Decoding speed, and its share of what the memory allows");
  decode->add_option("MODEL", model_, "model directory")->capture_default_str();
  decode
      ->add_option("--sequences", sequences_,
                   "how many at a time, one line for each: 1,2,4,8")
      ->delimiter(',')
      ->allow_extra_args(false)  // the model may follow
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  decode
      ->add_option("--seconds", seconds_, "of decoding for each line, at least")
      ->check(Between(0.05, 600))
      ->capture_default_str();
  decode->add_option("--json", json_, "also write the result to this file");
  AddFlags(*decode, flags_, kModelFlagsGroup, {"max_sequences", "profile"});
  decode->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

absl::StatusOr<std::unique_ptr<Model>> DecodeCommand::Load(
    int32_t context, Metrics& metrics) const {
  ModelFlags flags = flags_;
  flags.context = context;
  flags.max_sequences = *std::ranges::max_element(sequences_);
  flags.max_batch_tokens =
      std::max(flags.max_batch_tokens, flags.max_sequences);
  ASSIGN_OR_RETURN(ModelOptions options, ToModelOptions(flags));
  options.measure_kernels = true;
  ASSIGN_OR_RETURN(const std::filesystem::path packed,
                   FindPacked(model_, flags.cache_dir));
  ASSIGN_OR_RETURN(PackedModel model, PackedModel::Open(packed));
  ASSIGN_OR_RETURN(std::unique_ptr<Model> loaded,
                   Model::Load(std::move(model), options, metrics));
  const int32_t contexts = KvContexts(loaded->kv_groups(), loaded->kv_limits());
  if (contexts < flags.max_sequences) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "--sequences ", flags.max_sequences, ": the memory holds the KV of ",
        contexts, " sequences of ", context, " tokens"));
  }
  return loaded;
}

absl::Status DecodeCommand::RunModel(DramRoof& roof, Json& report) const {
  Metrics metrics;
  ASSIGN_OR_RETURN(const std::unique_ptr<Model> model,
                   Load(flags_.context, metrics));
  ASSIGN_OR_RETURN(const ModelCost cost,
                   ModelCost::Of(model->packed(), flags_.kv_type));
  report["isa"] = std::string(model->isa());
  report["threads"] = model->threads();
  report["activations"] = std::string(model->activations());
  report["kv_type"] = flags_.kv_type;
  report["context"] = model->context();
  report["model_context"] = model->config().context_length;
  {
    WorkerPool one(1);
    report["dram_bytes_per_second_1_thread"] = roof.Best(one);
  }
  WorkerPool pool(model->threads(), model->placement().cpus);
  report.update(MemoryLimits(roof, pool));
  std::printf("\n");
  report["lines"] = Json::array();
  const int32_t layers = static_cast<int32_t>(model->config().layers.size());
  report["all_experts_in_memory"] = HoldsAllExperts(*model);
  RETURN_IF_ERROR(Lockstep(*model, cost, 1).Warm());
  std::printf("%9s %12s %10s %12s %8s %8s %8s %8s %8s\n", "sequences",
              "tokens/s", "ms/step", "MB/token", "experts", "GB/s", "of GB/s",
              "share", "median");
  for (const int32_t sequences : sequences_) {
    Lockstep lockstep(*model, cost, sequences);
    ASSIGN_OR_RETURN(
        std::vector<Slice> slices,
        Slices(lockstep, roof, pool, seconds_, sequences, model->context()));
    report["lines"].push_back(Line(std::move(slices), sequences, layers));
    Print(report["lines"].back());
  }
  return absl::OkStatus();
}

// A model belongs to the thread that first runs it, so the engine needs its
// own.
absl::Status DecodeCommand::RunEngines(Json& report) const {
  Metrics metrics;
  const int32_t context =
      std::min(report["model_context"].get<int32_t>(), kEngineContext);
  ASSIGN_OR_RETURN(std::unique_ptr<Model> model, Load(context, metrics));
  const EngineWork work{.prompt_tokens = context / 3,
                        .decode_tokens = context - context / 3};
  Engine engine(std::move(model),
                {.max_sequences = *std::ranges::max_element(sequences_)},
                metrics);
  report["engine"] = Json::array();
  for (const int32_t sequences : sequences_) {
    EngineWork many = work;
    many.sequences = sequences;
    ASSIGN_OR_RETURN(const EngineSpeed speed,
                     RunEngine(engine, many, seconds_));
    const double share = speed.outside_seconds / speed.step_seconds;
    report["engine"].push_back(
        {{"sequences", sequences},
         {"tokens_per_second", speed.tokens_per_second},
         {"mean_tokens_per_second", speed.mean_tokens_per_second},
         {"step_ms", 1e3 * speed.step_seconds},
         {"outside_kernels_us_per_step", 1e6 * speed.outside_seconds},
         {"outside_kernels_share", share}});
    std::printf(
        "engine, %d at a time, contexts of %d: %.2f tokens/s, of a step %.1f "
        "us "
        "(%.2f %%) outside kernels\n",
        sequences, context, speed.tokens_per_second,
        1e6 * speed.outside_seconds, 100 * share);
  }
  return absl::OkStatus();
}

absl::Status DecodeCommand::Run() const {
  Json report = NewReport("decode");
  report["model"] = model_.string();
  std::printf("%s\n", MachineLine(report["machine"]).c_str());
  ASSIGN_OR_RETURN(const NumaPolicy numa, ParseNumaPolicy(flags_.numa));
  const Placement placement =
      Placement::Of(NumaTopology::Read(), numa, flags_.threads);
  ASSIGN_OR_RETURN(DramRoof roof, DramRoof::Allocate(placement.memory_nodes));
  RETURN_IF_ERROR(RunModel(roof, report));
  RETURN_IF_ERROR(RunEngines(report));
  return WriteReport(report, json_);
}

}  // namespace bullpen
