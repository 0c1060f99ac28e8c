#include "tools/pack_command.h"

#include <iostream>
#include <optional>

#include "absl/strings/str_format.h"
#include "base/status.h"
#include "spdlog/spdlog.h"
#include "tools/inspect.h"
#include "tools/progress.h"
#include "tools/score_text.h"

namespace bullpen {
namespace {

using nlohmann::ordered_json;

void PrintJson(const ordered_json& document) {
  std::cout << document.dump(1, ' ', false,
                             ordered_json::error_handler_t::replace)
            << "\n";
}

std::string PerplexityText(const Perplexity& perplexity) {
  return absl::StrFormat("%.5f (%d tokens)", perplexity.value(),
                         perplexity.scored);
}

}  // namespace

PackCommand::PackCommand(CLI::App& app, const Environment& environment,
                         Command& chosen) {
  flags_.cache_dir = environment.cache_dir;
  flags_.max_sequences = 1;
  CLI::App* command = app.add_subcommand(
      "pack",
      "Turn a Hugging Face directory or a GGUF file into a packed model");
  command->add_option("SOURCE", source_, "the model to read")->required();
  command->add_option("-o,--output", target_,
                      "the directory to write; it appears once it is complete");
  command->add_option("--experts", experts_,
                      "quantise FFN weights to this type: q4_k, q6_k, q8_0, "
                      "iq4_nl, mxfp4 and others");
  command->add_option("--resident", resident_,
                      "quantise attention, embedding, head and shared experts "
                      "to this type");
  command->add_option("--calibrate", calibration_,
                      "a text like those to come: what it makes large counts "
                      "more when quantising. Runs the model as it is, from a "
                      "packed copy in the cache directory");
  command->add_option("--perplexity", perplexity_,
                      "a text to measure the model on, before and after");
  command->add_flag(
      "--inspect", inspect_,
      "print what is in SOURCE (GGUF, safetensors, a directory, a packed "
      "model) and write nothing");
  command->add_flag("--json", json_, "print the report as JSON");
  AddFlags(*command, flags_,
           "Running the model, for --calibrate and --perplexity");
  command->callback([this, &chosen] {
    chosen = [this] { return inspect_ ? RunInspect() : Run(); };
  });
}

absl::Status PackCommand::RunInspect() const {
  ASSIGN_OR_RETURN(const ordered_json found, InspectModel(source_));
  if (json_) {
    PrintJson(found);
  } else {
    std::cout << InspectionText(found);
  }
  return absl::OkStatus();
}

absl::StatusOr<PackOptions> PackCommand::ReadTargets() const {
  PackOptions options;
  if (!experts_.empty()) {
    ASSIGN_OR_RETURN(options.targets.experts, ParseTargetType(experts_));
  }
  if (!resident_.empty()) {
    ASSIGN_OR_RETURN(options.targets.resident, ParseTargetType(resident_));
  }
  if (!calibration_.empty() && experts_.empty() && resident_.empty()) {
    return absl::InvalidArgumentError(
        "--calibrate needs --experts TYPE or --resident TYPE: nothing is "
        "quantised without");
  }
  return options;
}

absl::StatusOr<Perplexity> PackCommand::Score(
    const std::filesystem::path& model, const std::filesystem::path& text,
    Importance* importance) const {
  return ScoreText({.model = model,
                    .text = text,
                    .flags = flags_,
                    .importance = importance});
}

absl::Status PackCommand::Run() const {
  if (target_.empty()) {
    return absl::InvalidArgumentError(
        "pack needs --output DIR for the packed model, or --inspect");
  }
  ASSIGN_OR_RETURN(PackOptions options, ReadTargets());
  Outcome outcome;
  Importance importance;
  if (!calibration_.empty()) {
    ASSIGN_OR_RETURN(outcome.calibration,
                     Score(source_, calibration_, &importance));
    options.importance = &importance;
    outcome.experts_seen = importance.experts();
  }
  const bool changes = !experts_.empty() || !resident_.empty();
  if (!perplexity_.empty() && changes) {
    ASSIGN_OR_RETURN(outcome.before, Score(source_, perplexity_, nullptr));
  }
  options.report = [&](const PackReport& given) { outcome.report = given; };
  {
    Progress progress("packing " + source_.string());
    options.progress = [&progress](int64_t done, int64_t total) {
      progress.Update(done, total);
    };
    RETURN_IF_ERROR(Pack(source_, target_, options));
  }
  if (!perplexity_.empty()) {
    ASSIGN_OR_RETURN(outcome.after, Score(target_, perplexity_, nullptr));
  }
  if (json_) {
    PrintJson(ToJson(outcome));
  } else {
    std::cout << ToText(outcome);
  }
  spdlog::info("packed {} into {}", source_.string(), target_.string());
  return absl::OkStatus();
}

ordered_json PackCommand::ToJson(const Outcome& outcome) const {
  ordered_json json = ordered_json::object();
  if (outcome.report.has_value()) json = outcome.report->ToJson();
  if (outcome.calibration.has_value()) {
    json["calibration"] = {{"text", calibration_.string()},
                           {"tokens", outcome.calibration->scored},
                           {"experts_seen", outcome.experts_seen}};
  }
  if (outcome.after.has_value()) {
    ordered_json& perplexity = json["perplexity"];
    perplexity = {{"text", perplexity_.string()},
                  {"tokens", outcome.after->scored}};
    if (outcome.before.has_value()) {
      perplexity["before"] = outcome.before->value();
    }
    perplexity["after"] = outcome.after->value();
  }
  return json;
}

std::string PackCommand::ToText(const Outcome& outcome) const {
  // Without a report: the packed model was there already.
  std::string text = outcome.report.has_value() ? outcome.report->ToText() : "";
  if (outcome.calibration.has_value()) {
    absl::StrAppendFormat(&text,
                          "calibrated on %d tokens of %s, which called %d "
                          "experts; others count every weight alike\n",
                          outcome.calibration->scored, calibration_.string(),
                          outcome.experts_seen);
  }
  if (outcome.after.has_value()) {
    absl::StrAppendFormat(&text, "perplexity of %s: ", perplexity_.string());
    if (outcome.before.has_value()) {
      absl::StrAppendFormat(&text, "before %s, after ",
                            PerplexityText(*outcome.before));
    }
    absl::StrAppendFormat(&text, "%s\n", PerplexityText(*outcome.after));
  }
  return text;
}

}  // namespace bullpen
