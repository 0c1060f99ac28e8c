#pragma once

#include <filesystem>
#include <string>

#include "tools/model_flags.h"
#include "tools/options.h"

namespace bullpen {

// `bullpen logits [MODEL] --ids 1,2,3 --out FILE`: what the model computes for
// a prompt, as tensors to compare with other implementations. The parser
// writes into this object, which stays where it is.
class LogitsCommand {
 public:
  LogitsCommand(CLI::App& app, const Environment& environment, Command& chosen);
  LogitsCommand(const LogitsCommand&) = delete;

 private:
  absl::Status Run() const;

  std::filesystem::path model_;
  std::filesystem::path out_;
  std::string ids_;
  bool all_ = false;
  ModelFlags flags_;
};

}  // namespace bullpen
