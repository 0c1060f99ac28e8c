#include "tools/pack_command.h"

#include <iostream>

#include "base/status.h"
#include "engine/model/pack.h"
#include "spdlog/spdlog.h"
#include "tools/inspect.h"
#include "tools/progress.h"

namespace bullpen {

PackCommand::PackCommand(CLI::App& app, Command& chosen) {
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
  CLI::Option* inspect = command->add_flag(
      "--inspect", inspect_,
      "print what is in SOURCE (GGUF, safetensors, a directory, a packed "
      "model) and write nothing");
  command->add_flag("--json", json_, "print it as JSON")->needs(inspect);
  command->callback([this, &chosen] {
    chosen = [this] { return inspect_ ? RunInspect() : Run(); };
  });
}

absl::Status PackCommand::RunInspect() const {
  ASSIGN_OR_RETURN(const nlohmann::ordered_json found, InspectModel(source_));
  if (json_) {
    std::cout << found.dump(1, ' ', false,
                            nlohmann::ordered_json::error_handler_t::replace)
              << "\n";
  } else {
    std::cout << InspectionText(found);
  }
  return absl::OkStatus();
}

absl::Status PackCommand::Run() const {
  if (target_.empty()) {
    return absl::InvalidArgumentError(
        "pack needs --output DIR for the packed model, or --inspect");
  }
  PackOptions options;
  if (!experts_.empty()) {
    ASSIGN_OR_RETURN(options.targets.experts, ParseTargetType(experts_));
  }
  if (!resident_.empty()) {
    ASSIGN_OR_RETURN(options.targets.resident, ParseTargetType(resident_));
  }
  PackReport report;
  options.report = [&report](const PackReport& given) { report = given; };
  {
    Progress progress("packing " + source_.string());
    options.progress = [&progress](int64_t done, int64_t total) {
      progress.Update(done, total);
    };
    RETURN_IF_ERROR(Pack(source_, target_, options));
  }
  std::cout << report.ToText();
  spdlog::info("packed {} into {}", source_.string(), target_.string());
  return absl::OkStatus();
}

}  // namespace bullpen
