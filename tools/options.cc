#include "tools/options.h"

#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/status.h"
#include "base/strings.h"

namespace bullpen {
namespace {

constexpr int32_t kMaxThreads = 1024;
constexpr int32_t kMaxContext = 1 << 24;
constexpr int32_t kMaxSequences = 4096;
constexpr int32_t kMaxBatchTokens = 1 << 16;
constexpr int32_t kMaxOracleWindow = 4096;

absl::Status CheckFlag(std::string_view name, int32_t value, int32_t low,
                       int32_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", Absl(name), " must be at least ", low, " and at most ",
                   high, ", got ", value));
}

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

absl::StatusOr<ModelOptions> ToModelOptions(const ModelFlags& flags) {
  RETURN_IF_ERROR(CheckFlag("threads", flags.threads, 0, kMaxThreads));
  RETURN_IF_ERROR(CheckFlag("context", flags.context, 0, kMaxContext));
  RETURN_IF_ERROR(
      CheckFlag("max-sequences", flags.max_sequences, 1, kMaxSequences));
  RETURN_IF_ERROR(CheckFlag("max-batch-tokens", flags.max_batch_tokens, 1,
                            kMaxBatchTokens));
  RETURN_IF_ERROR(
      CheckFlag("oracle-window", flags.oracle_window, 0, kMaxOracleWindow));
  ModelOptions options;
  options.threads = flags.threads;
  options.numa = flags.numa;
  options.isa = flags.isa;
  options.activations = flags.activations;
  options.kv_type = flags.kv_type;
  options.context = flags.context;
  options.max_sequences = flags.max_sequences;
  options.max_batch_tokens = flags.max_batch_tokens;
  options.policy = flags.policy;
  options.expert_slots = flags.expert_slots;
  options.layer_floor = flags.layer_floor;
  options.prefetch = flags.prefetch;
  options.prefetch_horizon = flags.prefetch_horizon;
  options.predictors = flags.predictors;
  options.profile = flags.profile.string();
  options.oracle_window = flags.oracle_window;
  options.io_limit = flags.io_limit.bytes_per_second;
  options.memory.total_bytes = flags.memory.count;
  options.memory.kv_bytes = flags.kv_memory.count;
  options.memory.expert_bytes = flags.expert_memory.count;
  return options;
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
