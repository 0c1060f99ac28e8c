#pragma once

#include <filesystem>

#include "tools/model_flags.h"
#include "tools/options.h"

namespace bullpen {

// `bullpen bench prefill`: tokens per second of one prompt, and their share of
// what the multiply-adds allow. The parser writes into this object, which
// stays where it is.
class PrefillCommand {
 public:
  PrefillCommand(CLI::App& bench, const Environment& environment,
                 Command& chosen);
  PrefillCommand(const PrefillCommand&) = delete;

 private:
  absl::Status Run() const;

  std::filesystem::path model_;
  std::filesystem::path json_;
  ModelFlags flags_;
  int32_t prompt_ = 512;
  double seconds_ = 3;
};

}  // namespace bullpen
