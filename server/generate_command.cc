#include "server/generate_command.h"

#include <cstdio>
#include <iostream>
#include <iterator>
#include <string_view>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "server/local_session.h"

namespace bullpen {
namespace {

void PrintText(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void PrintStats(const LocalSession::Outcome& outcome) {
  const Finished& finished = outcome.finished;
  const double decode_seconds =
      finished.total_seconds - finished.first_token_seconds;
  const int32_t decoded = finished.completion_tokens - 1;
  absl::FPrintF(stderr,
                "prompt %d tokens, first token after %.1f ms; %d tokens in "
                "%.3f s (%.1f tokens/s after the first); seed %u\n",
                finished.prompt_tokens, finished.first_token_seconds * 1e3,
                finished.completion_tokens, finished.total_seconds,
                decoded > 0 ? decoded / decode_seconds : 0.0, outcome.seed);
}

}  // namespace

GenerateCommand::GenerateCommand(CLI::App& app, const Environment& environment,
                                 Command& chosen) {
  load_.model = environment.default_model;
  load_.python = environment.python;
  load_.flags.cache_dir = environment.cache_dir;
  load_.flags.max_sequences = 1;
  CLI::App* command = app.add_subcommand(
      "generate", "Continue a text and print what comes, without a server");
  command->add_option("MODEL", load_.model, "model directory")
      ->capture_default_str();
  CLI::Option* prompt = command->add_option(
      "-p,--prompt", prompt_, "the text to continue; unset: standard input");
  command->add_option("--ids", ids_, "the prompt as token ids: 1,2,3")
      ->excludes(prompt);
  AddSamplingFlags(*command, sampling_);
  command->add_flag("--ignore-eos", ignore_eos_,
                    "go on after the end-of-sequence token");
  command->add_flag("--print-ids", print_ids_,
                    "print token ids, 1,2,3, instead of text");
  command->add_flag("--stats", stats_, "print timing to standard error");
  command->add_option("--record-routing", load_.record_routing,
                      "write which experts each token used to this new file");
  command->add_flag("--record-token-ids", load_.record_token_ids,
                    "with the ids of the tokens, which tell their text");
  AddFlags(*command, load_.flags, kModelFlagsGroup);
  command->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

absl::StatusOr<GenerateParams> GenerateCommand::Params() const {
  GenerateParams params;
  SetSampling(sampling_, params);
  params.ignore_eos = ignore_eos_;
  if (ids_.has_value()) {
    ASSIGN_OR_RETURN(params.prompt, ParseIds(*ids_));
  } else if (prompt_.has_value()) {
    params.prompt = *prompt_;
  } else {
    params.prompt = std::string(std::istreambuf_iterator<char>(std::cin), {});
  }
  return params;
}

absl::Status GenerateCommand::Run() const {
  ASSIGN_OR_RETURN(const GenerateParams params, Params());
  ASSIGN_OR_RETURN(const std::unique_ptr<LocalSession> session,
                   LocalSession::Load(load_));
  const auto on_text = [this](std::string_view text) {
    if (!print_ids_) PrintText(text);
  };
  ASSIGN_OR_RETURN(const LocalSession::Outcome outcome,
                   session->Generate(params, on_text, nullptr));
  PrintText(print_ids_ ? absl::StrJoin(outcome.ids, ",") + "\n" : "\n");
  if (stats_) PrintStats(outcome);
  return absl::OkStatus();
}

}  // namespace bullpen
