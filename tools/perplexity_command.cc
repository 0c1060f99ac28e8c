#include "tools/perplexity_command.h"

#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/metrics.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/model/tokenizer.h"
#include "nlohmann/json.hpp"
#include "tools/load_model.h"
#include "tools/perplexity.h"
#include "tools/progress.h"

namespace bullpen {
namespace {

constexpr int64_t kMaxTextBytes = int64_t{1} << 30;

double Seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

void Print(const Perplexity& result, int32_t window, double seconds) {
  std::printf(
      "perplexity %.5f (mean %.6f nats; %lld tokens scored in %lld windows of "
      "%d; %.1f tokens/s)\n",
      result.value(), result.mean_nll, static_cast<long long>(result.scored),
      static_cast<long long>(result.windows), window,
      static_cast<double>(result.scored) / seconds);
}

void PrintJson(const Perplexity& result, int32_t window, double seconds) {
  const nlohmann::ordered_json document = {{"perplexity", result.value()},
                                           {"mean_nll", result.mean_nll},
                                           {"scored_tokens", result.scored},
                                           {"windows", result.windows},
                                           {"window", window},
                                           {"seconds", seconds}};
  std::cout << document.dump() << '\n';
}

}  // namespace

PerplexityCommand::PerplexityCommand(CLI::App& app,
                                     const Environment& environment,
                                     Command& chosen)
    : model_(environment.default_model) {
  flags_.cache_dir = environment.cache_dir;
  flags_.max_sequences = 1;
  CLI::App* command = app.add_subcommand(
      "perplexity", "Measure how well a model foresees a text");
  command->add_option("MODEL", model_, "model directory")
      ->capture_default_str();
  command->add_option("--text", text_, "the text, a file in UTF-8")->required();
  command
      ->add_option("--window", window_,
                   "tokens computed together; all but the first are scored")
      ->capture_default_str();
  command->add_flag("--json", json_, "print one JSON object");
  AddFlags(*command, flags_, kModelFlagsGroup);
  command->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

absl::Status PerplexityCommand::Run() const {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(text_, kMaxTextBytes));
  ASSIGN_OR_RETURN(const std::filesystem::path packed,
                   FindPacked(model_, flags_.cache_dir));
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                   Tokenizer::FromDirectory(packed));
  const std::vector<int32_t> ids =
      tokenizer->Encode(text, /*add_special=*/true);
  Metrics metrics;
  ASSIGN_OR_RETURN(const std::unique_ptr<Model> model,
                   LoadModel(packed, flags_, metrics));
  Progress progress("scoring " + text_.string(), Progress::Unit::kCount);
  const auto start = std::chrono::steady_clock::now();
  ASSIGN_OR_RETURN(
      const Perplexity result,
      MeasurePerplexity(*model, ids,
                        {.window = window_,
                         .progress = [&progress](int64_t done, int64_t total) {
                           progress.Update(done, total);
                         }}));
  progress.Finish();
  const double seconds = Seconds(std::chrono::steady_clock::now() - start);
  if (json_) {
    PrintJson(result, window_, seconds);
  } else {
    Print(result, window_, seconds);
  }
  return absl::OkStatus();
}

}  // namespace bullpen
