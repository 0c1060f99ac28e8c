#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "engine/model/pack.h"
#include "nlohmann/json.hpp"
#include "tools/model_flags.h"
#include "tools/options.h"
#include "tools/perplexity.h"

namespace bullpen {

// `bullpen pack SOURCE -o DIR`: turns a model into the layout that is served;
// `bullpen pack --inspect SOURCE` prints what is in any model. The parser
// writes into this object, which stays where it is.
class PackCommand {
 public:
  PackCommand(CLI::App& app, const Environment& environment, Command& chosen);
  PackCommand(const PackCommand&) = delete;

 private:
  // What there is to tell in the end.
  struct Outcome {
    std::optional<PackReport> report;
    std::optional<Perplexity> calibration;
    int64_t experts_seen = 0;
    std::optional<Perplexity> before;
    std::optional<Perplexity> after;
  };

  absl::Status Run() const;
  absl::Status RunInspect() const;
  absl::StatusOr<PackOptions> ReadTargets() const;
  // What a model makes of a text; gathers what its matrices see, if asked.
  absl::StatusOr<Perplexity> Score(const std::filesystem::path& model,
                                   const std::filesystem::path& text,
                                   Importance* importance) const;
  nlohmann::ordered_json ToJson(const Outcome& outcome) const;
  std::string ToText(const Outcome& outcome) const;

  std::filesystem::path source_;
  std::filesystem::path target_;
  std::string experts_;
  std::string resident_;
  std::filesystem::path calibration_;
  std::filesystem::path perplexity_;
  bool inspect_ = false;
  bool json_ = false;
  ModelFlags flags_;
};

}  // namespace bullpen
