#include "tools/pack_command.h"

#include "base/status.h"
#include "engine/model/pack.h"
#include "spdlog/spdlog.h"
#include "tools/progress.h"

namespace bullpen {

PackCommand::PackCommand(CLI::App& app, Command& chosen) {
  CLI::App* command = app.add_subcommand(
      "pack",
      "Turn a Hugging Face directory or a GGUF file into a packed model");
  command->add_option("SOURCE", source_, "the model to read")->required();
  command
      ->add_option("-o,--output", target_,
                   "the directory to write; it appears once it is complete")
      ->required();
  command->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

absl::Status PackCommand::Run() const {
  {
    Progress progress("packing " + source_.string());
    PackOptions options;
    options.progress = [&progress](int64_t done, int64_t total) {
      progress.Update(done, total);
    };
    RETURN_IF_ERROR(Pack(source_, target_, options));
  }
  spdlog::info("packed {} into {}", source_.string(), target_.string());
  return absl::OkStatus();
}

}  // namespace bullpen
