#include "engine/model/model.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/memory_policy.h"
#include "base/status.h"
#include "base/worker_pool.h"
#include "engine/experts/profile.h"
#include "engine/model/activations.h"
#include "engine/model/kv_shape.h"
#include "engine/model/layers.h"
#include "engine/model/look_ahead.h"
#include "kernels/ops.h"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

// Where workers and memory go on this machine.
absl::StatusOr<Placement> PlaceHere(const ModelOptions& options) {
  ASSIGN_OR_RETURN(const NumaPolicy policy, ParseNumaPolicy(options.numa));
  const NumaTopology topology = NumaTopology::Read();
  Placement placement = Placement::Of(topology, policy, options.threads);
  if (!placement.memory_nodes.empty()) {
    const absl::Status allowed = TryBindPages(placement.memory_nodes);
    if (!allowed.ok()) {
      spdlog::warn("memory lies where the kernel likes: {}{}",
                   std::string(allowed.message()),
                   absl::IsPermissionDenied(allowed)
                       ? "; a container needs CAP_SYS_NICE for it"
                       : "");
      placement.memory_nodes.clear();
      placement.memory_bytes = 0;
    }
  }
  spdlog::info("{}", placement.Describe(topology));
  return placement;
}

absl::StatusOr<bool> RoundsActivations(const std::string& name) {
  if (name == "int8") return true;
  if (name == "f32") return false;
  return absl::InvalidArgumentError(
      absl::StrCat("activations '", name, "' is not one of int8, f32"));
}

absl::StatusOr<PolicyKind> ParsePolicy(const std::string& name) {
  if (name == "crf") return PolicyKind::kCrf;
  if (name == "lru") return PolicyKind::kLru;
  if (name == "lfu") return PolicyKind::kLfu;
  if (name == "static") return PolicyKind::kStatic;
  return absl::InvalidArgumentError(
      absl::StrCat("policy '", name, "' is not one of crf, lru, lfu, static"));
}

absl::StatusOr<Verification> ParseVerification(const std::string& name) {
  if (name == "always") return Verification::kAlways;
  if (name == "once") return Verification::kOnce;
  return absl::InvalidArgumentError(
      absl::StrCat("verify_experts '", name, "' is not one of always, once"));
}

// Rotation angles as transformers computes them: the product in float32.
class RopeTable {
 public:
  explicit RopeTable(const ModelConfig& config)
      : rope_(MakeRope(config.rope)) {}

  void Fill(std::span<const SequenceRows> sequences,
            const Activations& out) const {
    const size_t half = rope_.early.frequency.size();
    for (const SequenceRows& sequence : sequences) {
      for (int32_t r = 0; r < sequence.rows; ++r) {
        const size_t row = static_cast<size_t>(sequence.first_row + r) * half;
        const float position = static_cast<float>(sequence.first_position + r);
        const Rotation& rotation =
            rope_.at(sequence.first_position + r, sequence.prompt);
        for (size_t i = 0; i < half; ++i) {
          const double angle = position * rotation.frequency[i];
          out.cos[row + i] =
              static_cast<float>(std::cos(angle)) * rotation.factor;
          out.sin[row + i] =
              static_cast<float>(std::sin(angle)) * rotation.factor;
        }
      }
    }
  }

 private:
  Rope rope_;
};

}  // namespace

struct Model::State {
  State(PackedModel model, const ModelOptions& model_options)
      : packed(std::move(model)),
        options(model_options),
        rope(packed.config()) {}

  absl::Status Load(std::unique_ptr<BlobReader> blob_reader, Metrics& metrics);
  absl::Status PlanMemoryForContext();
  absl::Status PlanAndAllocate(Metrics& metrics);
  absl::Status PinByProfile();
  void MakeLayers();
  bool HoldsAllExperts() const;
  void FillKvSequences(std::span<const SequenceRows> sequences);
  absl::Status RunLayers(const Pass& pass);
  absl::Status RunHead(const Pass& pass, const ForwardBatch& batch);

  PackedModel packed;
  ModelOptions options;
  RopeTable rope;
  Placement placement;
  int32_t context = 0;
  kernels::KvLayer kv_shape;  // of every layer
  bool int8 = false;          // activations are rounded for block types
  const kernels::Ops* ops = nullptr;
  std::unique_ptr<WorkerPool> pool;
  kernels::Stream stream;
  MemoryPlan plan;
  ResidentWeights weights;
  Activations scratch;
  HugeBuffer kv;  // of each layer its group's blocks
  PolicyKind policy = PolicyKind::kCrf;
  Verification verification = Verification::kAlways;
  std::unique_ptr<BlobReader> reader;
  std::unique_ptr<TransferQueue> transfers;
  HugeBuffer arena;  // the cache's slots
  std::unique_ptr<ExpertCache> cache;
  std::vector<AttentionLayer> attention;
  std::vector<MoeLayer> moe;
  std::unique_ptr<LookAhead> look_ahead;  // null: nothing to load ahead
  kernels::PanelMatrix embed;
  kernels::PanelMatrix head;
  const float* head_bias = nullptr;
  NormWeights final_norm;
  ForwardTap tap;
  Reroute reroute;
  // Of the batch at hand, kept to avoid allocation.
  std::vector<std::vector<kernels::KvSequence>> kv_sequences;
  std::vector<absl::Status> sequence_status;
};

absl::Status Model::State::Load(std::unique_ptr<BlobReader> blob_reader,
                                Metrics& metrics) {
  const ModelConfig& config = packed.config();
  if (options.threads < 0 || options.threads > 1024) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads ", options.threads, " is not in 0..1024"));
  }
  ASSIGN_OR_RETURN(placement, PlaceHere(options));
  options.threads = placement.threads;
  options.memory.node_bytes = placement.memory_bytes;
  if (options.max_batch_tokens < 1 || options.max_sequences < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_batch_tokens ", options.max_batch_tokens, " and max_sequences ",
        options.max_sequences, " must be at least 1"));
  }
  context = options.context == 0 ? config.context_length : options.context;
  if (context < 1 || context > config.context_length) {
    return absl::InvalidArgumentError(
        absl::StrCat("context ", context, " is not in 1..",
                     config.context_length, ", the model's own"));
  }
  ASSIGN_OR_RETURN(const kernels::KvType kv_type, ParseKvType(options.kv_type));
  kv_shape = KvShape(config, kv_type);
  ASSIGN_OR_RETURN(const bool round, RoundsActivations(options.activations));
  int8 = round && packed.has_block_types();
  ASSIGN_OR_RETURN(policy, ParsePolicy(options.policy));
  ASSIGN_OR_RETURN(verification, ParseVerification(options.verify_experts));
  RETURN_IF_ERROR(LookAhead::Check(options));
  if (!options.profile.empty()) {
    RETURN_IF_ERROR(CheckProfilePath(options.profile, RoutingShapeOf(config)));
  }
  ASSIGN_OR_RETURN(const kernels::Isa isa, kernels::ParseIsa(options.isa));
  ops = &kernels::CpuOps(isa);
  reader = std::move(blob_reader);
  RETURN_IF_ERROR(PlanAndAllocate(metrics));
  pool = std::make_unique<WorkerPool>(options.threads, placement.cpus);
  if (options.measure_kernels) pool->MeasureTime();
  stream.pool = pool.get();
  MakeLayers();
  if (options.prefetch != "off" && !HoldsAllExperts()) {
    look_ahead = std::make_unique<LookAhead>(packed.config(), options, moe,
                                             *cache, metrics);
  } else if (!options.profile.empty()) {
    spdlog::warn("nothing is learnt for the profile {}: {}", options.profile,
                 HoldsAllExperts() ? "all experts are in memory"
                                   : "nothing is loaded ahead");
  }
  return absl::OkStatus();
}

// Where the operator gave no context, one that the memory cannot hold is
// halved rather than refused: KV for one whole context must fit.
absl::Status Model::State::PlanMemoryForContext() {
  constexpr int32_t kLeastContext = 2048;
  const ModelConfig& config = packed.config();
  while (true) {
    const ActivationLimits limits{.rows = options.max_batch_tokens,
                                  .threads = options.threads,
                                  .context = context,
                                  .int8 = int8};
    const KvSizes sizes(
        config, {.context = context, .step_rows = options.max_batch_tokens},
        options.max_sequences, kv_shape.block_bytes());
    absl::StatusOr<MemoryPlan> fitting = PlanMemory(
        packed, options.memory, Activations::Bytes(config, limits), sizes);
    if (fitting.ok()) {
      plan = *std::move(fitting);
      return absl::OkStatus();
    }
    if (options.context != 0 || context / 2 < kLeastContext ||
        !absl::IsResourceExhausted(fitting.status())) {
      return fitting.status();
    }
    context /= 2;
    spdlog::warn("memory holds no context of {} tokens; trying {}", context * 2,
                 context);
  }
}

absl::Status Model::State::PlanAndAllocate(Metrics& metrics) {
  const ModelConfig& config = packed.config();
  RETURN_IF_ERROR(PlanMemoryForContext());
  const ActivationLimits limits{.rows = options.max_batch_tokens,
                                .threads = options.threads,
                                .context = context,
                                .int8 = int8};
  const std::vector<int32_t>& nodes = placement.memory_nodes;
  ASSIGN_OR_RETURN(weights, packed.LoadResident(nodes));
  ASSIGN_OR_RETURN(scratch, Activations::Allocate(config, limits, nodes));
  ASSIGN_OR_RETURN(
      kv, HugeBuffer::Allocate(plan.kv_bytes, HugeBuffer::Touch::kNow, nodes));
  if (reader == nullptr) {
    ASSIGN_OR_RETURN(reader, OpenBlobFiles(packed.catalog().files));
  }
  if (options.io_limit > 0) {
    reader = LimitRate(std::move(reader), options.io_limit);
  }
  transfers = std::make_unique<TransferQueue>(
      *reader, TransferConfig{.threads = options.transfer_threads});
  ASSIGN_OR_RETURN(std::vector<int32_t> floors,
                   LayerFloors(config,
                               {.expert_slots = options.expert_slots,
                                .layer_floor = options.layer_floor},
                               plan.slots));
  ASSIGN_OR_RETURN(arena,
                   HugeBuffer::Allocate(
                       ExpertCache::ArenaBytes(packed.catalog(), plan.slots),
                       HugeBuffer::Touch::kNow, nodes));
  cache = std::make_unique<ExpertCache>(
      packed.catalog(),
      CacheConfig{.slots = plan.slots,
                  .floors = std::move(floors),
                  .policy = policy,
                  .half_life_tokens = options.half_life_tokens,
                  .verification = verification,
                  .oracle_window = options.oracle_window},
      arena.span(), *transfers, metrics);
  return policy == PolicyKind::kStatic ? PinByProfile() : absl::OkStatus();
}

absl::Status Model::State::PinByProfile() {
  if (options.profile.empty()) {
    return absl::InvalidArgumentError(
        "policy static needs a profile of what past requests used: let a "
        "server write one with --profile FILE and another policy");
  }
  ASSIGN_OR_RETURN(
      const auto shares,
      LoadExpertShares(options.profile, RoutingShapeOf(packed.config())));
  for (size_t l = 0; l < shares.size(); ++l) {
    cache->SetScores(static_cast<int32_t>(l), shares[l]);
  }
  return absl::OkStatus();
}

void Model::State::MakeLayers() {
  const ModelConfig& config = packed.config();
  const int layers = static_cast<int>(config.layers.size());
  attention.reserve(layers);
  moe.reserve(layers);
  kernels::KvLayer memory = kv_shape;
  memory.base = kv.data();
  for (int l = 0; l < layers; ++l) {
    const int32_t group = FindKvGroup(plan.kv_groups, config.layers[l].window);
    memory.blocks = plan.kv_groups[group].blocks;
    attention.emplace_back(config, weights, l,
                           LayerKv{.memory = memory, .group = group});
    memory.base += memory.blocks * memory.block_bytes();
    moe.emplace_back(packed, weights, l, *cache);
  }
  embed = weights.matrix("embed");
  head = config.tied_head ? embed : weights.matrix("head");
  head_bias = config.head_bias ? weights.vector("head_bias") : nullptr;
  final_norm = NormWeights::Of(config, weights, "final_norm");
}

bool Model::State::HoldsAllExperts() const {
  for (size_t l = 0; l < plan.slots.size(); ++l) {
    if (plan.slots[l] < packed.config().experts_in(static_cast<int32_t>(l))) {
      return false;
    }
  }
  return true;
}

void Model::State::FillKvSequences(std::span<const SequenceRows> sequences) {
  kv_sequences.resize(plan.kv_groups.size());
  for (size_t g = 0; g < kv_sequences.size(); ++g) {
    kv_sequences[g].clear();
    for (const SequenceRows& sequence : sequences) {
      CHECK(sequence.tables.size() == kv_sequences.size());
      kv_sequences[g].push_back({.blocks = sequence.tables[g].blocks.data(),
                                 .first_row = sequence.first_row,
                                 .rows = sequence.rows,
                                 .first_position = sequence.first_position});
    }
  }
}

absl::Status Model::State::RunLayers(const Pass& pass) {
  const ModelConfig& config = packed.config();
  const size_t rows = static_cast<size_t>(pass.rows);
  for (int l = 0; l < static_cast<int>(moe.size()); ++l) {
    RETURN_IF_ERROR(attention[l].Forward(pass));
    RETURN_IF_ERROR(moe[l].Forward(pass));
    if (tap.hidden) {
      tap.hidden(l, {scratch.hidden, rows * config.dim});
    }
    if (tap.routing && config.layers[l].moe) {
      const size_t entries = rows * config.experts_per_token;
      tap.routing(l, {scratch.chosen, entries},
                  {scratch.chosen_weights, entries});
    }
  }
  return absl::OkStatus();
}

// The norm runs over gathered rows, so that the head sees them dense.
absl::Status Model::State::RunHead(const Pass& pass,
                                   const ForwardBatch& batch) {
  const ModelConfig& config = packed.config();
  const int32_t rows = static_cast<int32_t>(batch.logit_rows.size());
  for (int32_t i = 0; i < rows; ++i) {
    CHECK(batch.logit_rows[i] < static_cast<int32_t>(batch.ids.size()));
    std::memcpy(scratch.normed + int64_t{i} * config.dim,
                scratch.hidden + int64_t{batch.logit_rows[i]} * config.dim,
                sizeof(float) * config.dim);
  }
  Pass gathered = pass;
  gathered.rows = rows;
  RETURN_IF_ERROR(
      NormRows(gathered, final_norm, scratch.normed, scratch.normed));
  return Multiply(gathered, {-1, config.tied_head ? "embed" : "head"},
                  {.x = scratch.normed,
                   .x_stride = config.dim,
                   .w = head,
                   .bias = head_bias,
                   .y = scratch.logits,
                   .y_stride = config.vocab,
                   .tokens = rows,
                   .scale = static_cast<float>(config.logit_scale)});
}

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::~Model() = default;

absl::StatusOr<std::unique_ptr<Model>> Model::Load(PackedModel packed,
                                                   const ModelOptions& options,
                                                   Metrics& metrics) {
  return Load(std::move(packed), options, metrics, nullptr);
}

absl::StatusOr<std::unique_ptr<Model>> Model::Load(
    PackedModel packed, const ModelOptions& options, Metrics& metrics,
    std::unique_ptr<BlobReader> reader) {
  auto state = std::make_unique<State>(std::move(packed), options);
  RETURN_IF_ERROR(state->Load(std::move(reader), metrics));
  return std::unique_ptr<Model>(new Model(std::move(state)));
}

absl::StatusOr<ForwardResult> Model::Forward(const ForwardBatch& batch) {
  State& s = *state_;
  const int32_t rows = static_cast<int32_t>(batch.ids.size());
  CHECK(rows <= s.options.max_batch_tokens) << rows << " rows";
  CHECK(batch.logit_rows.size() <= batch.ids.size());
  s.sequence_status.assign(batch.sequences.size(), absl::OkStatus());
  s.FillKvSequences(batch.sequences);
  Pass pass{.ops = *s.ops,
            .stream = s.stream,
            .scratch = s.scratch,
            .sequences = batch.sequences,
            .kv = s.kv_sequences,
            .rows = rows,
            .phase = batch.phase,
            .sequence_status = s.sequence_status,
            .watch = batch.watch,
            .reroute = s.reroute.choose ? &s.reroute : nullptr,
            .input_tap = s.tap.input ? &s.tap.input : nullptr};
  s.rope.Fill(batch.sequences, s.scratch);
  RETURN_IF_ERROR(
      s.ops->embed({.table = s.embed,
                    .ids = batch.ids.data(),
                    .out = s.scratch.hidden,
                    .tokens = rows,
                    .scale = static_cast<float>(s.packed.config().embed_scale)},
                   s.stream));
  const std::function<void(int32_t)> after_route = [&](int32_t layer) {
    s.look_ahead->AfterRoute(pass, layer);
  };
  const auto start = std::chrono::steady_clock::now();
  if (s.look_ahead != nullptr) {
    pass.after_route = &after_route;
    s.look_ahead->BeginStep(pass, batch.ids);
  }
  const absl::Status run = s.RunLayers(pass);
  if (s.look_ahead != nullptr) {
    const std::chrono::duration<double> seconds =
        std::chrono::steady_clock::now() - start;
    // A step that was given up tells nothing of what one takes.
    s.look_ahead->EndStep(pass, run.ok() ? seconds.count() : 0);
  }
  RETURN_IF_ERROR(run);
  if (!batch.logit_rows.empty()) {
    RETURN_IF_ERROR(s.RunHead(pass, batch));
  }
  const size_t logits =
      batch.logit_rows.size() * static_cast<size_t>(s.packed.config().vocab);
  return ForwardResult{.logits = {s.scratch.logits, logits},
                       .sequence_status = s.sequence_status};
}

void Model::set_tap(ForwardTap tap) { state_->tap = std::move(tap); }
void Model::set_reroute(Reroute reroute) {
  state_->reroute = std::move(reroute);
}
const PackedModel& Model::packed() const { return state_->packed; }
const ModelConfig& Model::config() const { return state_->packed.config(); }
const MemoryPlan& Model::memory() const { return state_->plan; }
int32_t Model::context() const { return state_->context; }
int32_t Model::max_batch_tokens() const {
  return state_->options.max_batch_tokens;
}
std::span<const KvGroup> Model::kv_groups() const {
  return state_->plan.kv_groups;
}
CacheSnapshot Model::cache_snapshot() const {
  return state_->cache->Snapshot();
}
std::string_view Model::isa() const { return state_->ops->name; }
std::string_view Model::activations() const {
  return state_->int8 ? "int8" : "f32";
}
const std::string& Model::kv_type() const { return state_->options.kv_type; }
int32_t Model::threads() const { return state_->options.threads; }
const Placement& Model::placement() const { return state_->placement; }
double Model::kernel_seconds() const { return state_->pool->seconds(); }

}  // namespace bullpen
