#include "tools/bench/prefill_command.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <utility>

#include "base/metrics.h"
#include "base/status.h"
#include "base/worker_pool.h"
#include "tools/bench/lockstep.h"
#include "tools/bench/machine.h"
#include "tools/bench/report.h"
#include "tools/bench/roofs.h"
#include "tools/load_model.h"

namespace bullpen {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kRoofSlices = 10;  // between two prompts
constexpr int kLeastPrompts = 3;

// The peaks that a model's products may be set against: that of float32
// multiply-adds, and that of the integer instructions.
std::map<Peak, double> NewPeaks(kernels::Isa isa) {
  std::map<Peak, double> peaks;
  for (const Peak peak : {Peak::kFmaF32, IntegerPeak(isa)}) {
    if (HasPeak(peak, isa)) peaks[peak] = 0;
  }
  return peaks;
}

void Raise(std::map<Peak, double>& peaks, kernels::Isa isa, WorkerPool& pool) {
  for (auto& [peak, best] : peaks) {
    for (int i = 0; i < kRoofSlices; ++i) {
      best = std::max(best, PeakSlice(peak, isa, pool));
    }
  }
}

}  // namespace

PrefillCommand::PrefillCommand(CLI::App& bench, const Environment& environment,
                               Command& chosen)
    : model_(environment.default_model) {
  flags_.cache_dir = environment.cache_dir;
  flags_.max_batch_tokens = 512;
  CLI::App* prefill = bench.add_subcommand(
      "prefill", "Speed of a prompt, and its share of the instructions' peak");
  prefill->add_option("MODEL", model_, "model directory")
      ->capture_default_str();
  prefill->add_option("--prompt", prompt_, "tokens of the prompt")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  prefill->add_option("--seconds", seconds_, "of computing, at least")
      ->check(Between(0.05, 600))
      ->capture_default_str();
  prefill->add_option("--json", json_, "also write the result to this file");
  AddFlags(*prefill, flags_, kModelFlagsGroup,
           {"max_sequences", "context", "profile"});
  prefill->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

absl::Status PrefillCommand::Run() const {
  Json report = NewReport("prefill");
  report["model"] = model_.string();
  std::printf("%s\n", MachineLine(report["machine"]).c_str());
  ModelFlags flags = flags_;
  flags.context = prompt_;
  flags.max_sequences = 1;
  Metrics metrics;
  ASSIGN_OR_RETURN(const kernels::Isa isa, kernels::ParseIsa(flags.isa));
  ASSIGN_OR_RETURN(const std::unique_ptr<Model> model,
                   LoadModel(model_, flags, metrics));
  ASSIGN_OR_RETURN(const ModelCost cost,
                   ModelCost::Of(model->packed(), flags.kv_type));
  Lockstep lockstep(*model, cost, 1);
  RETURN_IF_ERROR(lockstep.Warm());
  WorkerPool pool(model->threads(), model->placement().cpus);
  std::map<Peak, double> peaks = NewPeaks(isa);
  double best = 0;
  int prompts = 0;
  for (double spent = 0; spent < seconds_ || prompts < kLeastPrompts;
       ++prompts) {
    Raise(peaks, isa, pool);
    absl::Status status;
    const double seconds =
        SecondsOf([&] { status = lockstep.Prefill(prompt_); });
    RETURN_IF_ERROR(status);
    spent += seconds;
    best = std::max(best, 1 / seconds);
  }
  const double operations = 2 * cost.PromptMultiplyAdds(prompt_);
  report.update({{"isa", std::string(model->isa())},
                 {"activations", std::string(model->activations())},
                 {"threads", model->threads()},
                 {"all_experts_in_memory", HoldsAllExperts(*model)},
                 {"prompt_tokens", prompt_},
                 {"chunk_tokens", std::min(prompt_, model->max_batch_tokens())},
                 {"prompts", prompts},
                 {"tokens_per_second", prompt_ * best},
                 {"operations_per_token", operations / prompt_},
                 {"operations_per_second", operations * best}});
  std::printf("prompt of %d, %s, %d threads: %.1f tokens/s, %.1f GOPS\n",
              prompt_, std::string(model->isa()).c_str(), model->threads(),
              prompt_ * best, operations * best * 1e-9);
  for (const auto& [peak, rate] : peaks) {
    const double share = operations * best / rate;
    report["peaks"][PeakName(peak)] = {{"operations_per_second", rate},
                                       {"share", share}};
    std::printf("  %.3f of the %s peak, %.1f GOPS\n", share, PeakName(peak),
                rate * 1e-9);
  }
  return WriteReport(report, json_);
}

}  // namespace bullpen
