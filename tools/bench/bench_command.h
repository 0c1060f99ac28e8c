#pragma once

#include "tools/bench/decode_command.h"
#include "tools/bench/kernels_command.h"
#include "tools/bench/offload_command.h"
#include "tools/bench/prefill_command.h"
#include "tools/bench/shape_command.h"
#include "tools/bench/transfer_command.h"
#include "tools/options.h"

namespace bullpen {

// `bullpen bench`: what this machine does, and which share that is of what it
// can do. Each part is a subcommand of its own.
class BenchCommand {
 public:
  BenchCommand(CLI::App& app, const Environment& environment, Command& chosen)
      : BenchCommand(AddTo(app), environment, chosen) {}

 private:
  BenchCommand(CLI::App* bench, const Environment& environment, Command& chosen)
      : kernels_(*bench, chosen),
        decode_(*bench, environment, chosen),
        prefill_(*bench, environment, chosen),
        offload_(*bench, environment, chosen),
        shape_(*bench, chosen),
        transfer_(*bench, environment, chosen) {}
  static CLI::App* AddTo(CLI::App& app);

  KernelsCommand kernels_;
  DecodeCommand decode_;
  PrefillCommand prefill_;
  OffloadCommand offload_;
  ShapeCommand shape_;
  TransferCommand transfer_;
};

}  // namespace bullpen
