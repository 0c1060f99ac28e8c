#include "tools/options.h"

#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/status.h"
#include "base/strings.h"

namespace bullpen {
namespace {

// As a person would write it.
std::string DefaultText(int64_t bytes) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  return bytes > 0 && bytes % kMiB == 0 ? absl::StrCat(bytes / kMiB, "MiB")
                                        : absl::StrCat(bytes);
}

// A size that may end in `suffix`, written into `value`.
CLI::Option* AddSize(CLI::App& app, const std::string& name, int64_t& value,
                     const std::string& suffix, const std::string& help) {
  const auto parse = [suffix](std::string text) {
    if (!suffix.empty() && text.ends_with(suffix)) {
      text.resize(text.size() - suffix.size());
    }
    return ParseBytes(text);
  };
  const auto check = [parse](const std::string& text) {
    const absl::StatusOr<int64_t> bytes = parse(text);
    return bytes.ok() ? std::string() : std::string(bytes.status().message());
  };
  return app
      .add_option_function<std::string>(
          "--" + name,
          [&value, parse](const std::string& text) { value = *parse(text); },
          help)
      ->check(CLI::Validator(check, ""))
      ->default_str(DefaultText(value));
}

}  // namespace

CLI::Option* AddFlag(CLI::App& app, const std::string& name, Bytes& value,
                     const std::string& help) {
  return AddSize(app, name, value.count, "", help)->type_name("SIZE");
}

CLI::Option* AddFlag(CLI::App& app, const std::string& name, Rate& value,
                     const std::string& help) {
  return AddSize(app, name, value.bytes_per_second, "/s", help)
      ->type_name("RATE");
}

CLI::Validator Between(double low, double high) {
  const auto check = [low, high](const std::string& text) -> std::string {
    double value = 0;
    if (absl::SimpleAtod(text, &value) && value >= low && value <= high) {
      return "";
    }
    return absl::StrCat("must be at least ", low, " and at most ", high,
                        ", got ", text);
  };
  return CLI::Validator(check, absl::StrCat("from ", low, " to ", high));
}

absl::StatusOr<std::vector<int32_t>> ParseIds(const std::string& text) {
  std::vector<int32_t> ids;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    part = absl::StripAsciiWhitespace(part);
    int32_t id = 0;
    if (!absl::SimpleAtoi(part, &id)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--ids: '", part, "' is not a token id; write ids as 1,2,3"));
    }
    ids.push_back(id);
  }
  return ids;
}

}  // namespace bullpen
