#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/experts/trace_file.h"
#include "engine/model/model.h"
#include "engine/scheduler.h"

namespace bullpen {

// Writes what each token of each request was routed to into one binary trace:
// ids and weights of experts, never text, and the ids of tokens only where that
// is asked for by name. A request is a turn.
// Ends by itself, with a line in the log, when the file cannot be written or
// has reached the most that ReadTrace takes. Engine thread, after it was made.
class RoutingRecorder {
 public:
  struct File {
    std::filesystem::path path;
    bool token_ids = false;
  };
  // For a model that routes; FailedPrecondition for one that does not.
  static absl::StatusOr<std::unique_ptr<RoutingRecorder>> Create(
      const File& file, const PackedModel& model);
  ~RoutingRecorder();  // Writes what is left.

  // The rows of the step that begins.
  void BeginStep(const Batch& batch);
  // Brings it the choice of each layer; must not outlive it.
  ForwardTap Tap();

 private:
  explicit RoutingRecorder(TraceWriter writer) : writer_(std::move(writer)) {}
  void Stop();
  // A layer's choice for all rows: [rows, k].
  void Routed(int32_t layer, std::span<const int32_t> experts,
              std::span<const float> weights);

  TraceWriter writer_;
  bool stopped_ = false;
  std::vector<RoutingTrace::Choice> rows_;  // without layer
};

}  // namespace bullpen
