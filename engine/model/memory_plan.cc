#include "engine/model/memory_plan.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "base/available_memory.h"
#include "base/status.h"
#include "base/strings.h"
#include "kernels/kv_layout.h"

namespace bullpen {
namespace {

// Of the memory above what is needed at least, KV takes at most this share
// before the experts have had theirs; what they cannot use goes back to it.
constexpr double kKvShare = 0.25;

constexpr double kDefaultShareOfAvailable = 0.8;

class Splitter {
 public:
  Splitter(const ExpertCatalog& catalog, const MemoryBudget& budget,
           const KvSizes& kv)
      : catalog_(catalog), budget_(budget), kv_(kv) {}

  absl::StatusOr<MemoryPlan> Split(MemoryPlan least) const;
  void SetKv(int32_t size, MemoryPlan& plan) const {
    plan.kv_groups = kv_.Groups(size);
    plan.kv_bytes = kv_.Bytes(size);
  }
  int64_t DealLeast(MemoryPlan& plan) const;

 private:
  int64_t Total(const MemoryPlan& least) const;
  // The least, but for the parts that are given by hand.
  MemoryPlan WithParts(MemoryPlan least) const;
  absl::Status CheckFits(const MemoryPlan& least, int64_t total) const;
  // Slots, one more for each layer in turn, as long as `bytes` last.
  void Deal(int64_t bytes, MemoryPlan& plan) const;

  const ExpertCatalog& catalog_;
  const MemoryBudget& budget_;
  const KvSizes& kv_;
};

int64_t Splitter::DealLeast(MemoryPlan& plan) const {
  for (const ExpertCatalog::Layer& layer : catalog_.layers) {
    const int32_t slots =
        std::min<int32_t>(2, static_cast<int32_t>(layer.experts.size()));
    plan.slots.push_back(slots);
    plan.expert_bytes += slots * layer.blob_bytes;
  }
  return plan.expert_bytes;
}

void Splitter::Deal(int64_t bytes, MemoryPlan& plan) const {
  bool dealt = true;
  while (dealt) {
    dealt = false;
    for (size_t l = 0; l < catalog_.layers.size(); ++l) {
      const ExpertCatalog::Layer& layer = catalog_.layers[l];
      if (plan.slots[l] == static_cast<int32_t>(layer.experts.size()) ||
          plan.expert_bytes + layer.blob_bytes > bytes) {
        continue;
      }
      ++plan.slots[l];
      plan.expert_bytes += layer.blob_bytes;
      dealt = true;
    }
  }
}

int64_t Splitter::Total(const MemoryPlan& least) const {
  if (budget_.total_bytes > 0) return budget_.total_bytes;
  // Both parts by hand leave nothing to decide.
  if (budget_.kv_bytes > 0 && budget_.expert_bytes > 0) {
    return least.resident_bytes + least.activation_bytes + budget_.kv_bytes +
           budget_.expert_bytes;
  }
  const int64_t available = budget_.node_bytes > 0
                                ? std::min(AvailableBytes(), budget_.node_bytes)
                                : AvailableBytes();
  return static_cast<int64_t>(static_cast<double>(available) *
                              kDefaultShareOfAvailable);
}

MemoryPlan Splitter::WithParts(MemoryPlan least) const {
  if (budget_.kv_bytes > least.kv_bytes) {
    SetKv(kv_.SizeFor(budget_.kv_bytes), least);
    least.kv_bytes = budget_.kv_bytes;
  }
  Deal(budget_.expert_bytes, least);
  least.expert_bytes = std::max(least.expert_bytes, budget_.expert_bytes);
  return least;
}

absl::Status Splitter::CheckFits(const MemoryPlan& least, int64_t total) const {
  const auto refuse = [](const char* what, int64_t given, int64_t needed,
                         const MemoryPlan& plan) {
    return absl::ResourceExhaustedError(absl::StrCat(
        what, " of ", FormatBytes(given), " is below the ", FormatBytes(needed),
        " that are needed at least:\n", plan.Table()));
  };
  if (budget_.node_bytes > 0 && total > budget_.node_bytes) {
    return absl::FailedPreconditionError(
        absl::StrCat("a memory budget of ", FormatBytes(total),
                     " is above the ", FormatBytes(budget_.node_bytes),
                     " that the one NUMA node of policy isolate has left"));
  }
  if (budget_.kv_bytes > 0 && budget_.kv_bytes < least.kv_bytes) {
    return refuse("KV memory for one whole context", budget_.kv_bytes,
                  least.kv_bytes, least);
  }
  if (budget_.expert_bytes > 0 && budget_.expert_bytes < least.expert_bytes) {
    return refuse("expert memory", budget_.expert_bytes, least.expert_bytes,
                  least);
  }
  const MemoryPlan asked = WithParts(least);
  if (total < asked.total_bytes()) {
    return refuse("a memory budget", total, asked.total_bytes(), asked);
  }
  return absl::OkStatus();
}

absl::StatusOr<MemoryPlan> Splitter::Split(MemoryPlan least) const {
  const int64_t total = Total(least);
  RETURN_IF_ERROR(CheckFits(least, total));
  const int64_t rest = total - least.resident_bytes - least.activation_bytes;
  const int64_t experts_given =
      std::max(budget_.expert_bytes, least.expert_bytes);
  const int64_t spare = rest - experts_given - least.kv_bytes;

  MemoryPlan plan = least;
  if (budget_.kv_bytes > 0) {
    SetKv(kv_.SizeFor(budget_.kv_bytes), plan);
  } else {
    const double share = budget_.expert_bytes > 0 ? 1.0 : kKvShare;
    const int64_t extra =
        static_cast<int64_t>(static_cast<double>(spare) * share);
    SetKv(std::min(kv_.SizeFor(least.kv_bytes + extra), kv_.most()), plan);
  }
  Deal(budget_.expert_bytes > 0 ? budget_.expert_bytes : rest - plan.kv_bytes,
       plan);
  if (budget_.kv_bytes == 0) {
    const int64_t left =
        rest - std::max(plan.expert_bytes, budget_.expert_bytes);
    SetKv(std::min(kv_.SizeFor(left), kv_.most()), plan);
  }
  return plan;
}

}  // namespace

std::string MemoryPlan::Table() const {
  const std::string kv_blocks = absl::StrJoin(
      kv_groups, " + ", [](std::string* out, const KvGroup& group) {
        absl::StrAppend(out, group.blocks);
      });
  int64_t slot_count = 0;
  for (const int32_t count : slots) slot_count += count;
  const auto line = [](std::string what, int64_t bytes) {
    what.resize(std::max<size_t>(44, what.size() + 1), ' ');
    return absl::StrCat("  ", what, FormatBytes(bytes), "\n");
  };
  return absl::StrCat(line("resident weights", resident_bytes),
                      line("activations of one step", activation_bytes),
                      line(absl::StrCat("KV cache (", kv_blocks, " blocks of ",
                                        kernels::kKvBlockTokens, " tokens)"),
                           kv_bytes),
                      line(absl::StrCat("experts (", slot_count, " slots in ",
                                        slots.size(), " layers)"),
                           expert_bytes),
                      line("total", total_bytes()));
}

absl::StatusOr<std::vector<int32_t>> LayerFloors(
    const ModelConfig& config, const SlotDivision& division,
    std::span<const int32_t> slots) {
  const int32_t floor = division.layer_floor;
  if (division.expert_slots == "layer") {
    if (floor == 0) return std::vector<int32_t>();
    return absl::InvalidArgumentError(absl::StrCat(
        "layer_floor ", floor, " needs expert_slots shared, not layer"));
  }
  if (division.expert_slots != "shared") {
    return absl::InvalidArgumentError(
        absl::StrCat("expert_slots '", Absl(division.expert_slots),
                     "' is not one of layer, shared"));
  }
  if (floor < 0 || floor > config.experts) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer_floor ", floor, " is not in 0..", config.experts,
                     ", the experts of a layer"));
  }
  std::vector<int32_t> floors;
  for (size_t l = 0; l < slots.size(); ++l) {
    const int layer = static_cast<int>(l);
    const int32_t asked = std::min(floor, config.experts_in(layer));
    if (asked > slots[l]) {
      return absl::InvalidArgumentError(absl::StrCat(
          "layer_floor ", floor, ": ", slots.size(), " layers have ",
          std::accumulate(slots.begin(), slots.end(), 0),
          " slots in the memory given, of them layer ", l, " ", slots[l]));
    }
    floors.push_back(asked > 0 ? asked
                               : std::min(config.k_in(layer), slots[l]));
  }
  return floors;
}

absl::StatusOr<MemoryPlan> PlanMemory(const PackedModel& model,
                                      const MemoryBudget& budget,
                                      int64_t activation_bytes,
                                      const KvSizes& kv) {
  MemoryPlan least;
  least.resident_bytes = model.resident_bytes();
  least.activation_bytes = activation_bytes;
  const Splitter splitter(model.catalog(), budget, kv);
  splitter.SetKv(kv.least(), least);
  splitter.DealLeast(least);
  return splitter.Split(std::move(least));
}

}  // namespace bullpen
