#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/metrics.h"
#include "base/placement.h"
#include "engine/experts/cache.h"
#include "engine/model/memory_plan.h"
#include "engine/model/packed_model.h"
#include "engine/model/pass.h"
#include "kernels/kv_layout.h"

namespace bullpen {

struct ModelOptions {
  int32_t threads = 0;  // 0 = all CPUs of this process, or of its NUMA node
  std::string numa = "auto";  // off, distribute or isolate: see NumaPolicy
  std::string isa = "auto";
  // What block-typed weights multiply: x rounded to 8-bit integers, or as it
  // is (kernels/int8_rows.h).
  std::string activations = "int8";  // or f32
  std::string kv_type = "f32";       // f32, f16 or int8
  int32_t context = 0;               // 0 = the model's own
  int32_t max_sequences = 8;         // at a time, for the split of the budget
  int32_t max_batch_tokens = 256;    // rows of one forward pass
  MemoryBudget memory;
  std::string policy = "crf";   // who goes first: crf, lru, lfu or static
  double half_life_tokens = 0;  // of crf; 0: chosen on-line
  std::string expert_slots = "layer";  // or shared; see SlotDivision
  int32_t layer_floor = 0;
  std::string verify_experts = "always";  // or once; see Verification
  int32_t transfer_threads = 2;
  std::string prefetch = "auto";   // auto: while it pays; on, off
  int32_t prefetch_horizon = 2;    // layers ahead, 1..16
  std::string predictors = "all";  // or a list: see ParseEvidence
  std::string profile;             // file of what was learnt; empty: none
  int64_t io_limit = 0;            // bytes a second from disk; 0 = no limit
  int32_t oracle_window = 256;     // tokens; see OracleWindow; 0: none
  bool measure_kernels = false;    // for kernel_seconds()
};

// What `bullpen logits --all` and tests look at. Called on the engine thread
// in the middle of Forward; spans live for the call.
struct ForwardTap {
  std::function<void(int layer, std::span<const float> hidden)> hidden = {};
  // [tokens, k]; only MoE layers.
  std::function<void(int layer, std::span<const int32_t> experts,
                     std::span<const float> weights)>
      routing = {};
  // Rows that each matrix is multiplied with; not those of routers.
  InputTap input = {};
};

// Rows of several sequences, flattened; each sequence's rows are contiguous,
// in `sequences` order. Positions and tables are in the sequences.
struct ForwardBatch {
  std::span<const int32_t> ids;             // [tokens]
  std::span<const SequenceRows> sequences;  // blocks already allocated
  std::span<const int32_t> logit_rows;      // rows whose logits to give
  Phase phase = Phase::kDecode;             // any prompt row: kPrefill
  PassWatch watch = {};
};

struct ForwardResult {
  std::span<const float> logits;  // [logit_rows, vocab], until the next Forward
  std::vector<absl::Status>
      sequence_status;  // DataLoss for those whose expert failed
};

// A loaded model: resident weights, KV memory, expert cache, worker pool. Knows
// tensors, not requests. One thread (the engine's) calls Forward. The result
// for a sequence has the same bits whatever the batch, the chunking, the
// threads, the expert budget and the instruction set.
class Model {
 public:
  static absl::StatusOr<std::unique_ptr<Model>> Load(
      PackedModel packed, const ModelOptions& options, Metrics& metrics);
  // For tests: experts come through `reader` instead of the files.
  static absl::StatusOr<std::unique_ptr<Model>> Load(
      PackedModel packed, const ModelOptions& options, Metrics& metrics,
      std::unique_ptr<BlobReader> reader);
  ~Model();

  // An error status only for what concerns the whole batch, and from its watch.
  absl::StatusOr<ForwardResult> Forward(const ForwardBatch& batch);

  void set_tap(ForwardTap tap);
  // For benchmarks: from now on `reroute` replaces what routers say.
  void set_reroute(Reroute reroute);
  const PackedModel& packed() const;
  const ModelConfig& config() const;
  const MemoryPlan& memory() const;
  int32_t context() const;  // tokens a sequence may have
  int32_t max_batch_tokens() const;
  // Tables of a batch's sequences are in this order.
  std::span<const KvGroup> kv_groups() const;
  KvLimits kv_limits() const {
    return {.context = context(), .step_rows = max_batch_tokens()};
  }
  CacheSnapshot cache_snapshot() const;
  std::string_view isa() const;
  // "int8" if block types multiply rounded activations, else "f32".
  std::string_view activations() const;
  const std::string& kv_type() const;
  int32_t threads() const;
  const Placement& placement() const;  // of workers and memory
  // Any thread: time in the parallel loops of kernels since it was loaded, with
  // ModelOptions::measure_kernels.
  double kernel_seconds() const;

 private:
  struct State;
  explicit Model(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace bullpen
