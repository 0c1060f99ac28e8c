#pragma once

#include <filesystem>

#include "tools/options.h"

namespace bullpen {

// `bullpen tokenize [MODEL]`: JSON strings in, one a line; JSON arrays of token
// ids out. With --decode the other way round. The parser writes into this
// object, which stays where it is.
class TokenizeCommand {
 public:
  TokenizeCommand(CLI::App& app, const Environment& environment,
                  Command& chosen);
  TokenizeCommand(const TokenizeCommand&) = delete;

 private:
  absl::Status Run() const;

  std::filesystem::path model_;
  bool special_ = false;
  bool decode_ = false;
  bool skip_special_ = false;
};

}  // namespace bullpen
