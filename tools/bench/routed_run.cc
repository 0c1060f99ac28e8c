#include "tools/bench/routed_run.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/experts/trace_steps.h"

namespace bullpen {
namespace {

class MappedReader : public BlobReader {
 public:
  explicit MappedReader(std::vector<std::span<const std::byte>> files)
      : files_(std::move(files)) {}
  ~MappedReader() override {
    for (const auto& file : files_) {
      munmap(const_cast<std::byte*>(file.data()), file.size());
    }
  }

  absl::Status Read(int32_t file, int64_t offset,
                    std::span<std::byte> out) override {
    const std::span<const std::byte> bytes = files_[file];
    if (static_cast<size_t>(offset) + out.size() > bytes.size()) {
      return absl::DataLossError(
          absl::StrCat("byte ", offset, " is behind the end of file ", file));
    }
    std::memcpy(out.data(), bytes.data() + offset, out.size());
    return absl::OkStatus();
  }

 private:
  std::vector<std::span<const std::byte>> files_;
};

absl::StatusOr<std::span<const std::byte>> Map(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat info = {};
  if (fd < 0 || fstat(fd, &info) != 0 || info.st_size == 0) {
    if (fd >= 0) close(fd);
    return absl::NotFoundError(absl::StrCat("cannot map ", path));
  }
  const size_t size = static_cast<size_t>(info.st_size);
  void* const base = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (base == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot map ", path));
  }
  return std::span(static_cast<const std::byte*>(base), size);
}

// The trace in the routers' place, for one token after the other.
class RecordedRouter {
 public:
  RecordedRouter(const RoutingTrace& route, double recall)
      : route_(route), recall_(recall) {}

  void Choose(int32_t layer, std::span<int32_t> chosen,
              std::span<float> weights) {
    const RoutingTrace::Choice& choice = Choice(layer);
    std::ranges::copy(route_.chosen(choice), chosen.begin());
    std::ranges::copy(route_.weights(choice), weights.begin());
    layer_ = layer;
  }
  void LookAhead(int32_t layer, std::span<float> margins) {
    const double recall = recall_ - kRecallLostByLayer * (layer - layer_ - 1);
    std::ranges::fill(margins, -1.0f);
    for (const int32_t expert : route_.chosen(Choice(layer))) {
      const bool right = Uniform() < recall;
      margins[right ? static_cast<size_t>(expert)
                    : random_() % margins.size()] = 1;
    }
  }
  void NextToken() { ++token_; }

 private:
  const RoutingTrace::Choice& Choice(int32_t layer) const {
    const size_t layers = static_cast<size_t>(route_.layers());
    const size_t steps = route_.choices().size() / layers;
    return route_.choices()[token_ % steps * layers + layer];
  }
  double Uniform() { return static_cast<double>(random_()) * 0x1.0p-32; }

  const RoutingTrace& route_;
  double recall_;
  size_t token_ = 0;
  int32_t layer_ = 0;  // that has chosen last
  std::mt19937 random_{1};
};

}  // namespace

absl::StatusOr<RoutingTrace> RouteFor(const RoutingTrace& trace,
                                      const ModelConfig& config) {
  const int32_t layers = static_cast<int32_t>(config.layers.size());
  if (trace.layers() < layers || trace.experts() != config.experts ||
      trace.top_k() != config.experts_per_token) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the trace has ", trace.layers(), " layers of ", trace.experts(),
        " experts, ", trace.top_k(), " a token; the model has ", layers, " of ",
        config.experts, ", ", config.experts_per_token, " a token"));
  }
  RoutingTrace route(trace.experts(),
                     std::vector<int64_t>(static_cast<size_t>(layers)));
  const TraceSteps steps(trace, /*with_prefill=*/false, /*with_decode=*/true);
  int32_t token = 0;
  for (const TraceSteps::Step& step : steps.steps()) {
    const auto whole = [&](const TraceSteps::Run& run) {
      return std::ssize(steps.chosen(run, 0)) == trace.top_k();
    };
    const auto runs = steps.runs(step);
    if (static_cast<int32_t>(runs.size()) < layers ||
        !std::ranges::all_of(runs, whole)) {
      continue;
    }
    for (const TraceSteps::Run& run : runs.first(layers)) {
      RETURN_IF_ERROR(route.Add({.step = token, .layer = run.layer},
                                steps.chosen(run, 0),
                                trace.weights(steps.choice(run, 0))));
    }
    ++token;
  }
  if (token == 0) {
    return absl::InvalidArgumentError(
        "the trace has no decoded token that ran through all layers");
  }
  return route;
}

absl::StatusOr<RoutedResult> RunRouted(Model& model, const RoutingTrace& route,
                                       const RoutedRun& run) {
  RecordedRouter router(route, run.look_ahead_recall);
  Reroute reroute{.choose = [&](int layer, std::span<int32_t> chosen,
                                std::span<float> weights) {
    router.Choose(layer, chosen, weights);
  }};
  if (run.look_ahead_recall > 0) {
    reroute.look_ahead = [&](int layer, std::span<float> margins) {
      router.LookAhead(layer, margins);
    };
  }
  model.set_reroute(std::move(reroute));
  const std::vector<KvTable> tables =
      FixedKvTables(model.kv_groups(), model.kv_limits(), 0);
  const int32_t vocab = model.config().vocab;
  const int32_t row = 0;
  const auto start = std::chrono::steady_clock::now();
  for (int32_t now = 0; now < run.tokens; ++now) {
    const int32_t id = static_cast<int32_t>(int64_t{now} * 7919 % vocab);
    const SequenceRows sequence{
        .tables = tables, .rows = 1, .first_position = now % model.context()};
    ASSIGN_OR_RETURN(const ForwardResult result,
                     model.Forward({.ids = {&id, 1},
                                    .sequences = {&sequence, 1},
                                    .logit_rows = {&row, 1},
                                    .phase = Phase::kDecode}));
    RETURN_IF_ERROR(result.sequence_status[0]);
    router.NextToken();
  }
  RoutedResult result;
  result.tokens = run.tokens;
  result.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  result.cache = model.cache_snapshot();
  model.set_reroute({});
  return result;
}

absl::StatusOr<std::unique_ptr<BlobReader>> OpenMappedFiles(
    const std::vector<std::string>& paths) {
  std::vector<std::span<const std::byte>> files;
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(const std::span<const std::byte> file, Map(path));
    files.push_back(file);
  }
  return std::make_unique<MappedReader>(std::move(files));
}

}  // namespace bullpen
