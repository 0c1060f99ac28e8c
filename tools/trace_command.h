#pragma once

#include <filesystem>

#include "tools/options.h"

namespace bullpen {

// `bullpen trace IN OUT`: a routing trace in its other form. The parser writes
// into this object, which stays where it is.
class TraceCommand {
 public:
  TraceCommand(CLI::App& app, Command& chosen);
  TraceCommand(const TraceCommand&) = delete;

 private:
  absl::Status Run() const;

  std::filesystem::path in_;
  std::filesystem::path out_;
};

}  // namespace bullpen
