#pragma once

#include <filesystem>

#include "engine/experts/trace.h"
#include "nlohmann/json.hpp"
#include "tools/bench/routed_run.h"
#include "tools/model_flags.h"
#include "tools/options.h"

namespace bullpen {

// `bullpen bench offload` decodes with a model as a recorded trace routes, and
// sets the speed against the bound. The parser writes into this object, which
// stays where it is.
class OffloadCommand {
 public:
  OffloadCommand(CLI::App& bench, const Environment& environment,
                 Command& chosen);
  OffloadCommand(const OffloadCommand&) = delete;

 private:
  absl::Status Run() const;
  nlohmann::ordered_json Result(const RoutingTrace& route,
                                const RoutedResult& result,
                                double disk_bytes_per_second,
                                const Model& model) const;

  std::filesystem::path model_;
  std::filesystem::path trace_;
  ModelFlags flags_;
  int32_t slots_ = 0;
  int32_t tokens_ = 0;
  bool mapped_ = false;
  double look_ahead_recall_ = 0;
  std::filesystem::path json_;
};

}  // namespace bullpen
