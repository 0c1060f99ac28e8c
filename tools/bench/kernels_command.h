#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tools/bench/kernel_subjects.h"
#include "tools/options.h"

namespace bullpen {

// `bullpen bench kernels`: bytes and operations per second of ops, and their
// share of this machine's limits, measured between them. The parser writes
// into this object, which stays where it is.
class KernelsCommand {
 public:
  KernelsCommand(CLI::App& bench, Command& chosen);
  KernelsCommand(const KernelsCommand&) = delete;

 private:
  absl::Status Run() const;
  std::vector<KernelSetting> Settings(const KernelSubject& subject) const;

  std::vector<std::string> filters_;
  std::vector<std::string> isas_ = {"all"};
  std::vector<std::string> activations_ = {"int8"};
  std::vector<int32_t> rows_;
  std::vector<int32_t> threads_ = {1, 2};
  double seconds_ = 0.1;
  std::filesystem::path json_;
};

}  // namespace bullpen
