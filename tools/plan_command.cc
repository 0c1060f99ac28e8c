#include "tools/plan_command.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <numeric>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/available_memory.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/experts/profile.h"
#include "engine/experts/replay.h"
#include "engine/experts/trace_file.h"
#include "engine/model/activations.h"
#include "engine/model/kv_groups.h"
#include "engine/model/kv_shape.h"
#include "engine/model/look_ahead.h"
#include "engine/model/memory_plan.h"
#include "nlohmann/json.hpp"
#include "tools/load_model.h"

namespace bullpen {
namespace {

constexpr double kShareOfAvailable = 0.8;  // as `serve` takes by default
constexpr double kGoodEnough = 0.9;        // of the speed with all in memory
constexpr int32_t kPlannedContext = 8192;
constexpr int64_t kMiB = int64_t{1} << 20;

int32_t Threads(const ModelFlags& flags) {
  if (flags.threads > 0) return flags.threads;
  return std::max(1, static_cast<int32_t>(std::thread::hardware_concurrency()));
}

int32_t Context(const ModelFlags& flags, const PackedModel& model) {
  const int32_t most = model.config().context_length;
  return flags.context > 0 ? std::min(flags.context, most)
                           : std::min(kPlannedContext, most);
}

// What a token computes with besides experts: all resident weights, but of
// the embedding only its row, unless the head is the same matrix.
int64_t ResidentBytesPerToken(const PackedModel& model) {
  constexpr int64_t kEmbeddingElementBytes = 2;
  const ModelConfig& config = model.config();
  const int64_t embedding =
      config.tied_head
          ? 0
          : int64_t{config.vocab} * config.dim * kEmbeddingElementBytes;
  return std::max<int64_t>(model.resident_bytes() - embedding, 0);
}

std::string PerSecond(double bytes_per_second) {
  return FormatBytes(static_cast<int64_t>(bytes_per_second)) + "/s";
}

}  // namespace

PlanCommand::PlanCommand(CLI::App& app, const Environment& environment,
                         Command& chosen)
    : model_(environment.default_model) {
  flags_.cache_dir = environment.cache_dir;
  CLI::App* command = app.add_subcommand(
      "plan",
      "Measure this machine and say what memory gives which speed for a model");
  command->add_option("MODEL", model_, "model directory, packed on first use")
      ->capture_default_str();
  CLI::Option* trace =
      command->add_option("--trace", trace_,
                          "recorded routing of this model, to know its hit "
                          "rates; unset: those of even routing, the least "
                          "there can be");
  command
      ->add_option("--profile", profile_,
                   "what a server has learnt of this model's routing, instead "
                   "of a trace: the hit rates of the most used experts")
      ->excludes(trace);
  command->add_flag("--json", json_, "print one JSON object");
  AddFlag(*command, "cache-dir", flags_.cache_dir,
          "where packed copies of models are kept");
  AddFlag(*command, "expert-slots", flags_.expert_slots,
          "with --trace: layer or shared, as the server's")
      ->check(CLI::IsMember({"layer", "shared"}));
  AddFlag(*command, "threads", flags_.threads, "compute threads; 0: all CPUs");
  AddFlag(*command, "isa", flags_.isa,
          "instruction set: auto, oracle, avx2 or avx512");
  AddFlag(*command, "context", flags_.context,
          "tokens of KV cache to allow for; 0: up to 8192");
  AddFlag(*command, "kv-type", flags_.kv_type,
          "type of the KV cache: f32, f16 or int8");
  AddFlag(*command, "max-sequences", flags_.max_sequences,
          "requests that run at a time");
  AddFlag(*command, "max-batch-tokens", flags_.max_batch_tokens,
          "rows of one step");
  command->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

absl::StatusOr<KvSizes> PlanCommand::SizesOfKv(const PackedModel& model) const {
  ASSIGN_OR_RETURN(const kernels::KvType type, ParseKvType(flags_.kv_type));
  const ModelConfig& config = model.config();
  return KvSizes(
      config,
      {.context = Context(flags_, model), .step_rows = flags_.max_batch_tokens},
      flags_.max_sequences, KvShape(config, type).block_bytes());
}

int64_t PlanCommand::MemoryFor(const PackedModel& model, const KvSizes& kv,
                               int32_t slots) const {
  const int64_t activations =
      Activations::Bytes(model.config(), {.rows = flags_.max_batch_tokens,
                                          .threads = Threads(flags_),
                                          .context = Context(flags_, model),
                                          .int8 = model.has_block_types()});
  const std::vector<ExpertCatalog::Layer>& layers = model.catalog().layers;
  int64_t all = model.resident_bytes() + activations + kv.Bytes(kv.most());
  for (const ExpertCatalog::Layer& layer : layers) {
    all += std::ssize(layer.experts) * layer.blob_bytes;
  }
  const auto enough = [&](int64_t mebibytes) {
    const auto plan =
        PlanMemory(model, {.total_bytes = mebibytes * kMiB}, activations, kv);
    if (!plan.ok()) return false;
    for (size_t l = 0; l < layers.size(); ++l) {
      const int64_t most = std::ssize(layers[l].experts);
      if (plan->slots[l] < std::min<int64_t>(slots, most)) return false;
    }
    return true;
  };
  int64_t too_little = 0;
  int64_t fits = all / kMiB + 1;
  while (fits - too_little > 1) {
    const int64_t middle = too_little + (fits - too_little) / 2;
    (enough(middle) ? fits : too_little) = middle;
  }
  return fits * kMiB;
}

absl::StatusOr<PlanCommand::Routing> PlanCommand::RoutingOf(
    const PackedModel& model, std::optional<RoutingTrace> trace) const {
  Routing routing{
      .trace = std::move(trace), .shares = {}, .from = "even routing"};
  const ModelConfig& config = model.config();
  if (routing.trace.has_value()) {
    const int32_t experts = routing.trace->experts();
    const int32_t used = routing.trace->top_k();
    routing.from = absl::StrCat("the trace ", trace_.string());
    if (experts != config.experts || used != config.experts_per_token) {
      absl::StrAppend(&routing.from, ", of another model (", used, " of ",
                      experts, " experts a token; this one ",
                      config.experts_per_token, " of ", config.experts,
                      "), at the same share of slots");
    }
  } else if (!profile_.empty()) {
    ASSIGN_OR_RETURN(routing.shares,
                     LoadExpertShares(profile_, RoutingShapeOf(config)));
    for (std::vector<float>& layer : routing.shares) {
      std::ranges::sort(layer, std::greater<>());
    }
    routing.from = absl::StrCat("the profile ", profile_.string());
  }
  return routing;
}

double PlanCommand::HitRate(const Routing& routing, int32_t slots,
                            int32_t experts) const {
  if (slots >= experts) return 1;
  const double share = static_cast<double>(slots) / experts;
  if (!routing.shares.empty()) {
    double held = 0;
    double all = 0;
    for (const std::vector<float>& layer : routing.shares) {
      const auto end = layer.begin() + std::min<int64_t>(slots, layer.size());
      if (layer.size() < 2) continue;  // dense
      held += std::accumulate(layer.begin(), end, 0.0);
      all += std::accumulate(layer.begin(), layer.end(), 0.0);
    }
    return all > 0 ? held / all : share;
  }
  if (!routing.trace.has_value()) return share;
  const RoutingTrace& trace = *routing.trace;
  const int32_t scaled =
      std::clamp(static_cast<int32_t>(std::lround(share * trace.experts())), 1,
                 trace.experts());
  const bool shared = flags_.expert_slots == "shared";
  return Replay(trace,
                {.slots_per_layer = scaled,
                 .layer_floor = shared ? std::min(trace.top_k(), scaled) : 0,
                 .phase = Phase::kDecode})
      .hit_rate();
}

PlanCommand::Row PlanCommand::RowOf(const PackedModel& model,
                                    const MachineRates& rates, int32_t slots,
                                    double hit_rate) const {
  const ModelConfig& config = model.config();
  int64_t used_bytes = 0;  // of experts, by one token
  double missed = 0;       // of these
  int64_t absent = 0;      // experts that have no slot
  for (size_t l = 0; l < model.catalog().layers.size(); ++l) {
    const ExpertCatalog::Layer& layer = model.catalog().layers[l];
    const int64_t experts = static_cast<int64_t>(layer.experts.size());
    const int64_t held = std::min<int64_t>(slots, experts);
    const int64_t used = config.k_in(static_cast<int>(l)) * layer.blob_bytes;
    absent += (experts - held) * layer.blob_bytes;
    used_bytes += used;
    if (held < experts) missed += (1 - hit_rate) * static_cast<double>(used);
  }
  const double resident = static_cast<double>(ResidentBytesPerToken(model));
  const double compute = (resident + static_cast<double>(used_bytes)) /
                         rates.decode_bytes_per_second;
  const double read = missed / rates.disk_bytes_per_second;
  // One chunk of a prompt: a pass over its weights serves kPromptRows rows,
  // and every expert without a slot is read once.
  const double rows = flags_.max_batch_tokens;
  const double passes = std::max(1.0, rows / MachineRates::kPromptRows);
  const double prompt_compute = passes *
                                (resident + static_cast<double>(used_bytes)) /
                                rates.prompt_bytes_per_second;
  const double prompt_read =
      static_cast<double>(absent) / rates.disk_bytes_per_second;
  return {.slots = slots,
          .hit_rate = hit_rate,
          .decode_least = 1 / (compute + read),
          .decode_most = 1 / std::max(compute, read),
          .prefill_least = rows / (prompt_compute + prompt_read),
          .prefill_most = rows / std::max(prompt_compute, prompt_read)};
}

void PlanCommand::Print(const PackedModel& model, const MachineRates& rates,
                        int64_t kv_bytes, const std::string& routing,
                        const std::vector<Row>& rows) const {
  const int64_t available = static_cast<int64_t>(
      kShareOfAvailable * static_cast<double>(AvailableBytes()));
  const Row* best = nullptr;
  for (const Row& row : rows) {
    if (row.memory_bytes > available) break;
    best = &row;
    if (row.decode_least >= kGoodEnough * rows.back().decode_least) break;
  }
  if (json_) {
    nlohmann::ordered_json table = nlohmann::ordered_json::array();
    for (const Row& row : rows) {
      table.push_back({{"memory_bytes", row.memory_bytes},
                       {"slots_per_layer", row.slots},
                       {"hit_rate", row.hit_rate},
                       {"decode_tokens_per_second_least", row.decode_least},
                       {"decode_tokens_per_second_most", row.decode_most},
                       {"prefill_tokens_per_second_least", row.prefill_least},
                       {"prefill_tokens_per_second_most", row.prefill_most}});
    }
    nlohmann::ordered_json object = {
        {"disk_bytes_per_second", rates.disk_bytes_per_second},
        {"decode_bytes_per_second", rates.decode_bytes_per_second},
        {"available_bytes", available},
        {"kv_type", flags_.kv_type},
        {"kv_bytes", kv_bytes},
        {"hit_rates_of", routing},
        {"rows", table}};
    if (best != nullptr) object["recommended_memory"] = best->memory_bytes;
    std::printf("%s\n", object.dump().c_str());
    return;
  }
  absl::PrintF(
      "disk %s; weights %s for one row, %s for %d rows; %s may be used\n",
      PerSecond(rates.disk_bytes_per_second),
      PerSecond(rates.decode_bytes_per_second),
      PerSecond(rates.prompt_bytes_per_second), MachineRates::kPromptRows,
      FormatBytes(available));
  absl::PrintF(
      "KV cache %s: %s for a context of %d tokens, and more for up to "
      "%d of them\n",
      flags_.kv_type, FormatBytes(kv_bytes), Context(flags_, model),
      flags_.max_sequences);
  absl::PrintF("hit rates of %s\n", routing);
  absl::PrintF("%11s %6s %9s %17s %19s\n", "memory", "slots", "hit rate",
               "decode tokens/s", "prefill tokens/s");
  for (const Row& row : rows) {
    absl::PrintF("%11s %6d %7.1f %% %7.1f to %6.1f %8.0f to %7.0f%s\n",
                 FormatBytes(row.memory_bytes), row.slots, 100 * row.hit_rate,
                 row.decode_least, row.decode_most, row.prefill_least,
                 row.prefill_most, &row == best ? "  <- recommended" : "");
  }
  if (best != nullptr) {
    absl::PrintF("recommended: --memory %dMiB --context %d --kv-type %s\n",
                 best->memory_bytes / kMiB, Context(flags_, model),
                 flags_.kv_type);
  } else {
    absl::PrintF("no row fits into what may be used; the least is %s\n",
                 FormatBytes(rows.front().memory_bytes));
  }
}

absl::Status PlanCommand::Run() const {
  RETURN_IF_ERROR(ToModelOptions(flags_).status());
  std::optional<RoutingTrace> trace;
  if (!trace_.empty()) {
    ASSIGN_OR_RETURN(trace, ReadTrace(trace_));
  }
  ASSIGN_OR_RETURN(const std::filesystem::path dir,
                   FindPacked(model_, flags_.cache_dir));
  ASSIGN_OR_RETURN(const PackedModel model, PackedModel::Open(dir));
  ASSIGN_OR_RETURN(const Routing routing, RoutingOf(model, std::move(trace)));
  ASSIGN_OR_RETURN(const KvSizes kv, SizesOfKv(model));
  ASSIGN_OR_RETURN(const MachineRates rates,
                   MeasureRates(model, Threads(flags_), flags_.isa));
  int32_t experts = 1;
  for (const ExpertCatalog::Layer& layer : model.catalog().layers) {
    experts = std::max(experts, static_cast<int32_t>(layer.experts.size()));
  }
  std::vector<Row> rows;
  for (const double share : {0.0625, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0}) {
    const int32_t slots =
        std::clamp(static_cast<int32_t>(std::lround(share * experts)),
                   std::min(2, experts), experts);
    if (!rows.empty() && rows.back().slots == slots) continue;
    rows.push_back(
        RowOf(model, rates, slots, HitRate(routing, slots, experts)));
    rows.back().memory_bytes = MemoryFor(model, kv, slots);
  }
  Print(model, rates, kv.Bytes(kv.least()), routing.from, rows);
  return absl::OkStatus();
}

}  // namespace bullpen
