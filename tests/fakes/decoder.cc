#include "tests/fakes/decoder.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <numeric>
#include <string>
#include <system_error>

#include "base/check.h"
#include "engine/model/pack.h"
#include "gtest/gtest.h"

namespace bullpen {

namespace {

// A new directory, gone again when the program ends.
class TemporaryDirectory {
 public:
  TemporaryDirectory() : path_(testing::TempDir() + "/packed-XXXXXX") {
    CHECK(mkdtemp(path_.data()) != nullptr) << path_;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

std::filesystem::path PackedForTest(const std::filesystem::path& source) {
  if (IsPacked(source)) return source;
  static const TemporaryDirectory directory;
  static std::map<std::string, std::filesystem::path> packed;
  auto [entry, fresh] = packed.try_emplace(source.string());
  if (fresh) {
    entry->second = directory.path() / std::to_string(packed.size());
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
  tables_ = FixedKvTables(model_->kv_groups(), model_->kv_limits(), 0);
  // Not in memory order, as after some traffic.
  for (size_t g = 0; g < tables_.size(); ++g) {
    const int32_t last = model_->kv_groups()[g].blocks - 1;
    for (int32_t& block : tables_[g].blocks) block = last - block;
  }
}

std::vector<float> Decoder::Feed(const std::vector<int32_t>& ids,
                                 int32_t chunk) {
  std::vector<float> logits;
  const int32_t count = static_cast<int32_t>(ids.size());
  if (position_ == 0) prompt_ = count;
  for (int32_t at = 0; at < count; at += chunk) {
    const int32_t rows = std::min(chunk, count - at);
    std::vector<int32_t> wanted(rows);
    std::iota(wanted.begin(), wanted.end(), 0);
    const SequenceRows sequence{.tables = tables_,
                                .rows = rows,
                                .first_position = position_,
                                .prompt = prompt_};
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
