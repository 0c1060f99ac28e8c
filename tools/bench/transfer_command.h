#pragma once

#include <cstdint>
#include <filesystem>

#include "tools/options.h"

namespace bullpen {

// `bullpen bench transfer`: the rate at which experts come from the disk
// through the transfer queue, as a share of plain reads of the same blobs by as
// many threads, and what CPU time both take. The parser writes into this
// object, which stays where it is.
class TransferCommand {
 public:
  TransferCommand(CLI::App& bench, const Environment& environment,
                  Command& chosen);
  TransferCommand(const TransferCommand&) = delete;

 private:
  absl::Status Run() const;

  std::filesystem::path model_;
  std::filesystem::path cache_dir_;
  std::filesystem::path json_;
  int32_t threads_ = 2;
  double seconds_ = 3;
};

}  // namespace bullpen
