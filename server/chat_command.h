#pragma once

#include <string>

#include "server/load_service.h"
#include "server/sampling_flags.h"
#include "tools/options.h"

namespace bullpen {

// `bullpen chat [MODEL]`: a conversation on the terminal, or from a pipe one
// message a line. The parser writes into this object, which stays where it is.
class ChatCommand {
 public:
  ChatCommand(CLI::App& app, const Environment& environment, Command& chosen);
  ChatCommand(const ChatCommand&) = delete;

 private:
  absl::Status Run() const;

  LoadOptions load_;
  SamplingFlags sampling_;
  std::string system_;
};

}  // namespace bullpen
