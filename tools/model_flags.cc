#include "tools/model_flags.h"

#include <string_view>

#include "absl/strings/str_cat.h"
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

}  // namespace

absl::StatusOr<ModelOptions> ToModelOptions(const ModelFlags& flags) {
  RETURN_IF_ERROR(CheckFlag("threads", flags.threads, 0, kMaxThreads));
  RETURN_IF_ERROR(CheckFlag("context", flags.context, 0, kMaxContext));
  RETURN_IF_ERROR(
      CheckFlag("max-sequences", flags.max_sequences, 1, kMaxSequences));
  RETURN_IF_ERROR(CheckFlag("max-batch-tokens", flags.max_batch_tokens, 1,
                            kMaxBatchTokens));
  RETURN_IF_ERROR(
      CheckFlag("oracle-window", flags.oracle_window, 0, kMaxOracleWindow));
  constexpr double kMaxHalfLife = 1e9;
  if (!(flags.half_life >= 0 && flags.half_life <= kMaxHalfLife)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--half-life must be at least 0 and at most ",
                     kMaxHalfLife, ", got ", flags.half_life));
  }
  if (flags.half_life > 0 && flags.policy != "crf") {
    return absl::InvalidArgumentError(
        absl::StrCat("--half-life ", flags.half_life,
                     " needs --policy crf, not ", flags.policy));
  }
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
  options.half_life_tokens = flags.half_life;
  options.expert_slots = flags.expert_slots;
  options.layer_floor = flags.layer_floor;
  options.verify_experts = flags.verify_experts;
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

}  // namespace bullpen
