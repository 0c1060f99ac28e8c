#pragma once

#include <filesystem>
#include <string>

#include "tools/options.h"

namespace bullpen {

// `bullpen pack SOURCE -o DIR`: turns a model into the layout that is served;
// `bullpen pack --inspect SOURCE` prints what is in any model. The parser
// writes into this object, which stays where it is.
class PackCommand {
 public:
  PackCommand(CLI::App& app, Command& chosen);
  PackCommand(const PackCommand&) = delete;

 private:
  absl::Status Run() const;
  absl::Status RunInspect() const;

  std::filesystem::path source_;
  std::filesystem::path target_;
  std::string experts_;
  std::string resident_;
  bool inspect_ = false;
  bool json_ = false;
};

}  // namespace bullpen
