#pragma once

#include <filesystem>

#include "engine/model/shaped_model.h"
#include "tools/options.h"

namespace bullpen {

// `bullpen bench shape` writes a model of noise in the shapes of a real one.
// The parser writes into this object, which stays where it is.
class ShapeCommand {
 public:
  ShapeCommand(CLI::App& bench, Command& chosen);
  ShapeCommand(const ShapeCommand&) = delete;

 private:
  absl::Status Run() const;

  ShapedModelOptions options_;
  std::filesystem::path target_;
};

}  // namespace bullpen
