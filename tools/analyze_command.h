#pragma once

#include <filesystem>
#include <string>

#include "engine/experts/analysis.h"
#include "tools/options.h"

namespace bullpen {

// `bullpen analyze TRACE`: how well a model's routing suits a cache of experts.
// The parser writes into this object, which stays where it is.
class AnalyzeCommand {
 public:
  AnalyzeCommand(CLI::App& app, Command& chosen);
  AnalyzeCommand(const AnalyzeCommand&) = delete;

 private:
  absl::Status Run() const;
  void Print(const RoutingTrace& trace, const RoutingAnalysis& analysis) const;
  absl::Status Plot(const RoutingTrace& trace,
                    const RoutingAnalysis& analysis) const;

  std::filesystem::path trace_;
  std::string phase_ = "all";
  bool json_ = false;
  std::filesystem::path plots_;
};

}  // namespace bullpen
