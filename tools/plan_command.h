#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/experts/trace.h"
#include "engine/model/kv_groups.h"
#include "engine/model/machine_rates.h"
#include "engine/model/packed_model.h"
#include "tools/model_flags.h"
#include "tools/options.h"

namespace bullpen {

// `bullpen plan MODEL`: how much memory gives how many slots, which hit rate
// and which speed, and what to give --memory. The parser writes into this
// object, which stays where it is.
class PlanCommand {
 public:
  PlanCommand(CLI::App& app, const Environment& environment, Command& chosen);
  PlanCommand(const PlanCommand&) = delete;

 private:
  struct Row {
    int32_t slots = 0;  // of a layer with experts
    int64_t memory_bytes = 0;
    double hit_rate = 0;
    // Tokens per second if computing and reading never overlap, and if they
    // always do.
    double decode_least = 0;
    double decode_most = 0;
    double prefill_least = 0;
    double prefill_most = 0;
  };
  absl::StatusOr<KvSizes> SizesOfKv(const PackedModel& model) const;
  // The least --memory, in whole MiB, of which the server gives each layer so
  // many slots: KV for more requests than one gets a part.
  int64_t MemoryFor(const PackedModel& model, const KvSizes& kv,
                    int32_t slots) const;
  // Without its memory.
  Row RowOf(const PackedModel& model, const MachineRates& rates, int32_t slots,
            double hit_rate) const;
  // What hit rates are taken from; neither: of even routing.
  struct Routing {
    std::optional<RoutingTrace> trace;
    // By layer, the shares of tokens that use an expert, the largest first.
    std::vector<std::vector<float>> shares;
    std::string from;  // for people
  };
  absl::StatusOr<Routing> RoutingOf(const PackedModel& model,
                                    std::optional<RoutingTrace> trace) const;
  // Hits with `slots` of `experts`.
  double HitRate(const Routing& routing, int32_t slots, int32_t experts) const;
  void Print(const PackedModel& model, const MachineRates& rates,
             int64_t kv_bytes, const std::string& routing,
             const std::vector<Row>& rows) const;
  absl::Status Run() const;

  std::filesystem::path model_;
  std::filesystem::path trace_;
  std::filesystem::path profile_;
  ModelFlags flags_;
  bool json_ = false;
};

}  // namespace bullpen
