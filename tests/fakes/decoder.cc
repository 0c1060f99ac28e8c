#include "tests/fakes/decoder.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/model/pack.h"
#include "gtest/gtest.h"

namespace bullpen {

std::filesystem::path PackedForTest(const std::filesystem::path& source) {
  if (IsPacked(source)) return source;
  static std::map<std::string, std::filesystem::path> packed;
  auto [entry, fresh] = packed.try_emplace(source.string());
  if (fresh) {
    entry->second = std::filesystem::path(testing::TempDir()) /
                    absl::StrCat("packed-", getpid(), "-", packed.size());
    const absl::Status status = Pack(source, entry->second, {});
    CHECK(status.ok()) << status;
  }
  return entry->second;
}

Decoder::Decoder(const std::filesystem::path& source,
                 const ModelOptions& options) {
  absl::StatusOr<PackedModel> packed = PackedModel::Open(PackedForTest(source));
  CHECK(packed.ok()) << packed.status();
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Load(*std::move(packed), options, metrics_);
  CHECK(model.ok()) << model.status();
  model_ = *std::move(model);
  blocks_.resize(model_->kv_blocks());
  std::iota(blocks_.begin(), blocks_.end(), 0);
  // Not in memory order, as after some traffic.
  std::reverse(blocks_.begin(), blocks_.end());
}

std::vector<float> Decoder::Feed(const std::vector<int32_t>& ids,
                                 int32_t chunk) {
  std::vector<float> logits;
  const int32_t count = static_cast<int32_t>(ids.size());
  for (int32_t at = 0; at < count; at += chunk) {
    const int32_t rows = std::min(chunk, count - at);
    std::vector<int32_t> wanted(rows);
    std::iota(wanted.begin(), wanted.end(), 0);
    const kernels::KvSequence sequence{.blocks = blocks_.data(),
                                       .first_row = 0,
                                       .rows = rows,
                                       .first_position = position_};
    const absl::StatusOr<ForwardResult> result =
        model_->Forward({.ids = {ids.data() + at, static_cast<size_t>(rows)},
                         .sequences = {&sequence, 1},
                         .logit_rows = wanted,
                         .phase = rows > 1 ? Phase::kPrefill : Phase::kDecode});
    CHECK(result.ok()) << result.status();
    CHECK(result->sequence_status[0].ok()) << result->sequence_status[0];
    logits.insert(logits.end(), result->logits.begin(), result->logits.end());
    position_ += rows;
  }
  return logits;
}

ModelOptions WithActivations(const std::string& activations) {
  ModelOptions options;
  options.activations = activations;
  return options;
}

int64_t ExpertBytesFor(const PackedModel& model, int32_t slots) {
  int64_t bytes = 0;
  for (const ExpertCatalog::Layer& layer : model.catalog().layers) {
    const int32_t experts = static_cast<int32_t>(layer.experts.size());
    bytes += std::min(slots, experts) * layer.blob_bytes;
  }
  return bytes;
}

}  // namespace bullpen
