#include "tools/bench/bench_command.h"

namespace bullpen {

CLI::App* BenchCommand::AddTo(CLI::App& app) {
  CLI::App* bench = app.add_subcommand(
      "bench", "Measure this machine, and what share of it models use");
  bench->require_subcommand(1);
  return bench;
}

}  // namespace bullpen
