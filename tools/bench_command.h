#pragma once

#include <filesystem>
#include <string>

#include "engine/experts/trace.h"
#include "engine/model/shaped_model.h"
#include "tools/options.h"
#include "tools/routed_run.h"

namespace bullpen {

// `bullpen bench shape` writes a model of noise in the shapes of a real one;
// `bullpen bench offload` decodes with it as a recorded trace routes, and sets
// the speed against the bound. The parser writes into this object, which stays
// where it is.
class BenchCommand {
 public:
  BenchCommand(CLI::App& app, const Environment& environment, Command& chosen);
  BenchCommand(const BenchCommand&) = delete;

 private:
  absl::Status Shape() const;
  absl::Status Offload() const;
  void Report(const RoutingTrace& route, const RoutedResult& result,
              double disk_bytes_per_second, const Model& model) const;

  ShapedModelOptions shape_;
  std::filesystem::path target_;
  std::filesystem::path model_;
  std::filesystem::path trace_;
  ModelFlags flags_;
  int32_t slots_ = 0;
  int32_t tokens_ = 0;
  bool mapped_ = false;
};

}  // namespace bullpen
