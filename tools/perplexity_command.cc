#include "tools/perplexity_command.h"

#include <cstdio>
#include <iostream>

#include "base/status.h"
#include "nlohmann/json.hpp"
#include "tools/perplexity.h"
#include "tools/score_text.h"

namespace bullpen {
namespace {

void Print(const Perplexity& result, int32_t window) {
  std::printf(
      "perplexity %.5f (mean %.6f nats; %lld tokens scored in %lld windows of "
      "%d; %.1f tokens/s)\n",
      result.value(), result.mean_nll, static_cast<long long>(result.scored),
      static_cast<long long>(result.windows), window,
      static_cast<double>(result.scored) / result.seconds);
}

void PrintJson(const Perplexity& result, int32_t window) {
  const nlohmann::ordered_json document = {{"perplexity", result.value()},
                                           {"mean_nll", result.mean_nll},
                                           {"scored_tokens", result.scored},
                                           {"windows", result.windows},
                                           {"window", window},
                                           {"seconds", result.seconds}};
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
  ASSIGN_OR_RETURN(const Perplexity result, ScoreText({.model = model_,
                                                       .text = text_,
                                                       .window = window_,
                                                       .flags = flags_}));
  if (json_) {
    PrintJson(result, window_);
  } else {
    Print(result, window_);
  }
  return absl::OkStatus();
}

}  // namespace bullpen
