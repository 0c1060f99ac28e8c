#include "engine/routing_recorder.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {
constexpr int64_t kMaxBytes = int64_t{4000} << 20;
}  // namespace

absl::StatusOr<std::unique_ptr<RoutingRecorder>> RoutingRecorder::Create(
    const File& file, const PackedModel& model) {
  if (model.config().experts < 2) {
    return absl::FailedPreconditionError(
        "routing cannot be recorded: the model has no layer with experts to "
        "choose from");
  }
  std::vector<int64_t> expert_bytes;
  for (const ExpertCatalog::Layer& layer : model.catalog().layers) {
    expert_bytes.push_back(layer.blob_bytes);
  }
  ASSIGN_OR_RETURN(
      TraceWriter writer,
      TraceWriter::Create(file.path, {.experts = model.config().experts,
                                      .expert_bytes = expert_bytes,
                                      .token_ids = file.token_ids}));
  return std::unique_ptr<RoutingRecorder>(
      new RoutingRecorder(std::move(writer)));
}

RoutingRecorder::~RoutingRecorder() { Stop(); }

void RoutingRecorder::Stop() {
  if (stopped_) return;
  stopped_ = true;
  const absl::Status status = writer_.Close();
  if (!status.ok()) {
    spdlog::error("recording of routing ended: {}",
                  std::string(status.message()));
  }
}

ForwardTap RoutingRecorder::Tap() {
  ForwardTap tap;
  tap.routing = [this](int layer, std::span<const int32_t> experts,
                       std::span<const float> weights) {
    Routed(layer, experts, weights);
  };
  return tap;
}

void RoutingRecorder::BeginStep(const Batch& batch) {
  rows_.clear();
  for (const Batch::Item& item : batch.items) {
    const Sequence& sequence = *item.sequence;
    const int32_t prompt = static_cast<int32_t>(sequence.request.prompt.size());
    for (int32_t row = 0; row < item.rows; ++row) {
      const int32_t position = item.first_position + row;
      const bool decode = position >= prompt;
      rows_.push_back({.turn = sequence.number,
                       .phase = decode ? Phase::kDecode : Phase::kPrefill,
                       .step = decode ? position - prompt : position,
                       .token = sequence.token(position)});
    }
  }
}

void RoutingRecorder::Routed(int32_t layer, std::span<const int32_t> experts,
                             std::span<const float> weights) {
  if (stopped_ || rows_.empty()) return;
  const size_t k = experts.size() / rows_.size();
  for (size_t row = 0; row < rows_.size(); ++row) {
    RoutingTrace::Choice choice = rows_[row];
    choice.layer = layer;
    writer_.Add(choice, experts.subspan(row * k, k),
                weights.subspan(row * k, k));
  }
  if (writer_.bytes_written() > kMaxBytes) {
    spdlog::warn("recording of routing ended: the file has {} bytes",
                 writer_.bytes_written());
    Stop();
  }
}

}  // namespace bullpen
