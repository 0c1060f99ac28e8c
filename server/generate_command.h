#pragma once

#include <string>

#include "server/load_service.h"
#include "server/sampling_flags.h"
#include "tools/options.h"

namespace bullpen {

// `bullpen generate [MODEL] -p TEXT`: one completion to standard output. The
// parser writes into this object, which stays where it is.
class GenerateCommand {
 public:
  GenerateCommand(CLI::App& app, const Environment& environment,
                  Command& chosen);
  GenerateCommand(const GenerateCommand&) = delete;

 private:
  absl::Status Run() const;
  absl::StatusOr<GenerateParams> Params() const;

  LoadOptions load_;
  SamplingFlags sampling_;
  std::optional<std::string> prompt_;
  std::optional<std::string> ids_;
  bool print_ids_ = false;
  bool ignore_eos_ = false;
  bool stats_ = false;
};

}  // namespace bullpen
