#pragma once

#include <filesystem>

#include "tools/model_flags.h"
#include "tools/options.h"

namespace bullpen {

// `bullpen perplexity [MODEL] --text FILE`: how well the model foresees a
// text. The parser writes into this object, which stays where it is.
class PerplexityCommand {
 public:
  PerplexityCommand(CLI::App& app, const Environment& environment,
                    Command& chosen);
  PerplexityCommand(const PerplexityCommand&) = delete;

 private:
  absl::Status Run() const;

  std::filesystem::path model_;
  std::filesystem::path text_;
  int32_t window_ = 512;
  bool json_ = false;
  ModelFlags flags_;
};

}  // namespace bullpen
