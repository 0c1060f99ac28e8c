#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "engine/experts/replay.h"
#include "tools/options.h"

namespace bullpen {

// `bullpen replay TRACE`: what a cache policy and a predictor would have done
// with recorded routing, in virtual time, and how far that is from the optimum.
// Lists of policies, predictors and slots give a sweep. The parser writes into
// this object, which stays where it is.
class ReplayCommand {
 public:
  ReplayCommand(CLI::App& app, Command& chosen);
  ReplayCommand(const ReplayCommand&) = delete;

 private:
  // One combination, and what came of it.
  struct Row {
    std::string policy;
    std::string predictor;
    int32_t slots = 0;
    int32_t floor = 0;  // 0: each layer keeps its slots
    ReplayReport report = {};
    double belady_hit_rate = 0;
  };
  void AddSlotFlags(CLI::App& command);
  void AddRunFlags(CLI::App& command);
  absl::StatusOr<int32_t> FloorOf(const std::string& division, int32_t slots,
                                  const RoutingTrace& trace) const;
  absl::StatusOr<std::vector<Row>> Combinations(
      const RoutingTrace& trace) const;
  ReplayConfig ConfigOf(const Row& row) const;
  void RunAll(const RoutingTrace& trace, std::vector<Row>& rows) const;
  void Print(const RoutingTrace& trace, const std::vector<Row>& rows) const;
  absl::Status Write(const RoutingTrace& trace,
                     const std::vector<Row>& rows) const;
  std::string Json(const RoutingTrace& trace,
                   const std::vector<Row>& rows) const;
  absl::Status Run() const;

  std::filesystem::path trace_;
  std::vector<std::string> policies_ = {"crf"};
  std::vector<std::string> predictors_ = {"none"};
  std::vector<int32_t> slots_ = {0};
  std::vector<std::string> divisions_ = {"layer"};  // of slots over layers
  int32_t layer_floor_ = 0;
  std::string prefetch_ = "on";
  std::string phase_ = "all";
  Rate link_rate_;
  double compute_us_ = 0;
  double prompt_us_ = 0;
  ReplayConfig config_;
  bool json_ = false;
  std::filesystem::path csv_;
  std::filesystem::path svg_;
};

}  // namespace bullpen
