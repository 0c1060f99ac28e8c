#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"

namespace bullpen {

// A size on the command line: 12GiB, 512MiB, 1.5GB, 4096. 0 = automatic.
struct Bytes {
  int64_t count = 0;
};

// A rate on the command line: 1GiB/s, 100MiB. 0 = no limit.
struct Rate {
  int64_t bytes_per_second = 0;
};

// What main finds out about its surroundings, so that nobody else has to.
struct Environment {
  std::string version;
  std::filesystem::path default_model;
  std::filesystem::path cache_dir;
  std::string python;
};

// The work of the subcommand that was chosen; main runs it after parsing.
using Command = std::function<absl::Status()>;

// Adds --name to `app`; dashes stand where the field's name has underscores.
CLI::Option* AddFlag(CLI::App& app, const std::string& name, Bytes& value,
                     const std::string& help);
CLI::Option* AddFlag(CLI::App& app, const std::string& name, Rate& value,
                     const std::string& help);
// Set by its name alone.
inline CLI::Option* AddFlag(CLI::App& app, const std::string& name, bool& value,
                            const std::string& help) {
  return app.add_flag("--" + name, value, help);
}
template <typename T>
CLI::Option* AddFlag(CLI::App& app, const std::string& name, T& value,
                     const std::string& help) {
  return app.add_option("--" + name, value, help)->capture_default_str();
}

// Adds a flag for each field that config.ForEach lists, except those named in
// `without`; the help shows them together under `group`.
template <typename Config>
void AddFlags(CLI::App& app, Config& config, const std::string& group,
              std::initializer_list<std::string_view> without = {}) {
  config.ForEach([&](std::string name, auto& value, const char* help) {
    if (std::ranges::find(without, name) != without.end()) return;
    for (char& c : name) c = c == '_' ? '-' : c;
    AddFlag(app, name, value, help)->group(group);
  });
}

// Whether a number is in [low, high]; unlike CLI::Range, NaN is not.
CLI::Validator Between(double low, double high);

// "1,2,3" (blanks allowed). InvalidArgument names the entry.
absl::StatusOr<std::vector<int32_t>> ParseIds(const std::string& text);

}  // namespace bullpen
