#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "nlohmann/json.hpp"
#include "tools/bench/model_cost.h"
#include "tools/bench/roofs.h"
#include "tools/model_flags.h"
#include "tools/options.h"

namespace bullpen {

// `bullpen bench decode`: tokens per second at the end of a context, for some
// numbers of sequences at a time, and their share of what the memory's read
// rate allows; the engine's speed, and what of a step is not kernels. The
// parser writes into this object, which stays where it is.
class DecodeCommand {
 public:
  DecodeCommand(CLI::App& bench, const Environment& environment,
                Command& chosen);
  DecodeCommand(const DecodeCommand&) = delete;

 private:
  absl::Status Run() const;
  // Adds a line to `lines` for each number of sequences.
  absl::Status RunModel(DramRoof& roof, nlohmann::ordered_json& report) const;
  absl::Status RunEngines(nlohmann::ordered_json& report) const;
  absl::StatusOr<std::unique_ptr<Model>> Load(int32_t context,
                                              Metrics& metrics) const;

  std::filesystem::path model_;
  std::filesystem::path json_;
  ModelFlags flags_;
  std::vector<int32_t> sequences_ = {1, 2, 4, 8};
  double seconds_ = 3;
};

}  // namespace bullpen
