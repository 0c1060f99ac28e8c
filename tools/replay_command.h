#pragma once

#include <filesystem>
#include <string>

#include "engine/experts/replay.h"
#include "tools/options.h"

namespace bullpen {

// `bullpen replay TRACE`: what a cache policy would have done with recorded
// routing, and how far that is from the optimum. The parser writes into this
// object, which stays where it is.
class ReplayCommand {
 public:
  ReplayCommand(CLI::App& app, Command& chosen);
  ReplayCommand(const ReplayCommand&) = delete;

 private:
  absl::Status Run() const;

  std::filesystem::path trace_;
  std::string policy_ = "crf";
  std::string phase_ = "all";
  ReplayConfig config_;
  bool json_ = false;
};

}  // namespace bullpen
