#include "tools/bench/shape_command.h"

#include "tools/progress.h"

namespace bullpen {

ShapeCommand::ShapeCommand(CLI::App& bench, Command& chosen) {
  CLI::App* shape = bench.add_subcommand(
      "shape", "Write a packed model of noise in the shapes of a real one");
  shape->add_option("SHAPE", options_.shape, "whose shapes")
      ->check(CLI::IsMember(ShapedModels()))
      ->required();
  shape->add_option("-o,--output", target_, "the new directory")->required();
  shape->add_option("--layers", options_.layers, "fewer layers; 0: all")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  shape
      ->add_option("--top-k", options_.top_k,
                   "experts of a token, as the trace has them; 0: as the model")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  shape->add_option("--vocab", options_.vocab, "size of the vocabulary")
      ->check(CLI::Range(16, 1 << 18))
      ->capture_default_str();
  shape
      ->add_option("--expert-type", options_.expert_type,
                   "format of the experts: BF16, Q8_0, Q4_K ...")
      ->capture_default_str();
  shape
      ->add_option("--resident-type", options_.resident_type,
                   "format of all other matrices but the routers")
      ->capture_default_str();
  shape->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

absl::Status ShapeCommand::Run() const {
  Progress progress("writing " + target_.string());
  ShapedModelOptions options = options_;
  options.progress = [&progress](int64_t done, int64_t total) {
    progress.Update(done, total);
  };
  return WriteShapedModel(options, target_);
}

}  // namespace bullpen
