// Measures the engine on a packed model, and the model without the engine;
// prints JSON. bench/README.md says how to read it.

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "base/metrics.h"
#include "base/status.h"
#include "bench/engine/engine_run.h"
#include "bench/engine/model_run.h"
#include "engine/engine.h"
#include "engine/model/packed_model.h"
#include "nlohmann/json.hpp"

namespace bullpen::bench {
namespace {

struct Flags {
  std::string packed;
  std::vector<int32_t> batches = {1, 8};
  ModelOptions model;
  Workload workload;
};

nlohmann::json Line(const char* what, int32_t batch, const Best& best) {
  return {{"what", what},
          {"batch", batch},
          {"first_token_ms", best.first_token_ms},
          {"tokens_per_second", best.tokens_per_second},
          {"step_us", best.step_us}};
}

absl::StatusOr<std::unique_ptr<Model>> Load(const Flags& flags,
                                            Metrics& metrics) {
  ASSIGN_OR_RETURN(PackedModel packed, PackedModel::Open(flags.packed));
  return Model::Load(std::move(packed), flags.model, metrics);
}

// A model belongs to the thread that first runs it, so each part loads its own.
absl::Status Measure(const Flags& flags) {
  Metrics metrics;
  nlohmann::json runs = nlohmann::json::array();
  nlohmann::json report = {{"prompt_tokens", flags.workload.prompt_tokens}};
  std::vector<Best> alone;
  const auto with_batch = [&flags](int32_t batch) {
    Workload workload = flags.workload;
    workload.batch = batch;
    return workload;
  };
  {
    ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, Load(flags, metrics));
    report["isa"] = std::string(model->isa());
    report["threads"] = model->threads();
    for (const int32_t batch : flags.batches) {
      ASSIGN_OR_RETURN(const Best best, RunModel(*model, with_batch(batch)));
      runs.push_back(Line("model", batch, best));
      alone.push_back(best);
    }
  }
  ASSIGN_OR_RETURN(std::unique_ptr<Model> model, Load(flags, metrics));
  Engine engine(std::move(model), {}, metrics);
  for (size_t i = 0; i < flags.batches.size(); ++i) {
    ASSIGN_OR_RETURN(const Best best,
                     RunEngine(engine, with_batch(flags.batches[i])));
    runs.push_back(Line("engine", flags.batches[i], best));
    runs.back()["added_us_per_step"] = best.step_us - alone[i].step_us;
  }
  report["runs"] = std::move(runs);
  std::printf("%s\n", report.dump(2).c_str());
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Best decode rates and first-token times of the bare engine.");
  app.add_option("packed", flags.packed, "packed model directory")->required();
  app.add_option("--batch", flags.batches, "sequences at a time, run by run")
      ->capture_default_str()
      ->check(CLI::Range(1, 8));
  app.add_option("--threads", flags.model.threads, "0: all CPUs");
  app.add_option("--isa", flags.model.isa)->capture_default_str();
  app.add_option("--memory", flags.model.memory.total_bytes,
                 "bytes; 0: decide from what is free");
  app.add_option("--prompt-tokens", flags.workload.prompt_tokens)
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  app.add_option("--decode-tokens", flags.workload.decode_tokens)
      ->capture_default_str()
      ->check(CLI::Range(32, 100'000));
  app.add_option("--repeats", flags.workload.repeats)
      ->capture_default_str()
      ->check(CLI::Range(1, 100'000));
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = Measure(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "error: %s\n", status.ToString().c_str());
  return 1;
}

}  // namespace
}  // namespace bullpen::bench

int main(int argc, char** argv) { return bullpen::bench::Main(argc, argv); }
