#include "tests/fakes/fake_model.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/status.h"

namespace bullpen {
namespace {

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

void FakeModelControl::FailNextForward(absl::Status status) {
  absl::MutexLock lock(&mutex_);
  fail_next_ = std::move(status);
}

void FakeModelControl::Hold() {
  absl::MutexLock lock(&mutex_);
  hold_ = true;
}

void FakeModelControl::Release() {
  absl::MutexLock lock(&mutex_);
  hold_ = false;
  changed_.SignalAll();
}

void FakeModelControl::AwaitHeld() {
  absl::MutexLock lock(&mutex_);
  while (entered_ <= passed_) changed_.Wait(&mutex_);
}

void FakeModelControl::StepOnce() {
  absl::MutexLock lock(&mutex_);
  CHECK(hold_ && entered_ > passed_) << "no Forward is held";
  ++passes_;
  const int64_t target = entered_ + 1;
  changed_.SignalAll();
  while (entered_ < target) changed_.Wait(&mutex_);
}

int64_t FakeModelControl::forwards() const {
  absl::MutexLock lock(&mutex_);
  return passed_;
}

int32_t FakeModelControl::max_rows() const {
  absl::MutexLock lock(&mutex_);
  return max_rows_;
}

int32_t FakeModelControl::max_sequences() const {
  absl::MutexLock lock(&mutex_);
  return max_sequences_;
}

absl::Status FakeModelControl::Enter(const ForwardBatch& batch) {
  absl::MutexLock lock(&mutex_);
  max_rows_ = std::max(max_rows_, static_cast<int32_t>(batch.ids.size()));
  max_sequences_ =
      std::max(max_sequences_, static_cast<int32_t>(batch.sequences.size()));
  ++entered_;
  changed_.SignalAll();
  while (hold_ && passes_ == 0) changed_.Wait(&mutex_);
  if (hold_) --passes_;
  ++passed_;
  return std::exchange(fail_next_, absl::OkStatus());
}

struct Model::State {
  struct Entry {
    int32_t token = -1;
    int32_t position = -1;
  };

  Entry& At(const SequenceRows& sequence, size_t group, int32_t position);
  uint64_t History(const SequenceRows& sequence, int32_t position);
  void TakeBlocks(const SequenceRows& sequence,
                  std::set<std::pair<size_t, int32_t>>& owned) const;
  std::vector<absl::Status> Store(const ForwardBatch& batch);
  void FillLogits(const ForwardBatch& batch);
  void AppendLogits(const SequenceRows& sequence, int32_t position);

  FakeModelConfig fake;
  FakeModelControl* control = nullptr;
  PackedModel packed;
  ModelConfig config;
  MemoryPlan plan;
  std::vector<std::vector<Entry>> kv;  // of each group
  std::vector<float> logits;
};

Model::State::Entry& Model::State::At(const SequenceRows& sequence,
                                      size_t group, int32_t position) {
  const size_t block = static_cast<size_t>(position / kernels::kKvBlockTokens);
  return kv[group].at(
      static_cast<size_t>(sequence.tables[group].blocks.at(block)) *
          kernels::kKvBlockTokens +
      position % kernels::kKvBlockTokens);
}

uint64_t Model::State::History(const SequenceRows& sequence, int32_t position) {
  uint64_t hash = 0;
  for (size_t g = 0; g < fake.kv_groups.size(); ++g) {
    const int32_t window = fake.kv_groups[g].window;
    const int32_t first = window == 0 ? 0 : std::max(position - window + 1, 0);
    for (int32_t p = first; p <= position; ++p) {
      const Entry& entry = At(sequence, g, p);
      hash = Mix(hash + static_cast<uint64_t>(entry.token) * 65537 +
                 static_cast<uint64_t>(entry.position) + 1);
    }
  }
  return hash;
}

// Each block that is not given back has one owner.
void Model::State::TakeBlocks(
    const SequenceRows& sequence,
    std::set<std::pair<size_t, int32_t>>& owned) const {
  CHECK(sequence.tables.size() == fake.kv_groups.size());
  for (size_t g = 0; g < sequence.tables.size(); ++g) {
    const KvTable& table = sequence.tables[g];
    for (size_t i = static_cast<size_t>(table.given_back);
         i < table.blocks.size(); ++i) {
      CHECK(owned.insert({g, table.blocks[i]}).second)
          << "two owners of block " << table.blocks[i] << " in group " << g;
    }
  }
}

// Writes the rows, which are contiguous.
std::vector<absl::Status> Model::State::Store(const ForwardBatch& batch) {
  std::vector<absl::Status> statuses;
  std::set<std::pair<size_t, int32_t>> owned;
  std::set<int32_t> requests;
  int32_t row = 0;
  for (const SequenceRows& sequence : batch.sequences) {
    CHECK(sequence.first_row == row && sequence.rows > 0);
    const int32_t end = sequence.first_position + sequence.rows;
    CHECK(end <= fake.context);
    CHECK(requests.insert(sequence.request).second)
        << "two of request " << sequence.request;
    TakeBlocks(sequence, owned);
    absl::Status status;
    for (int32_t p = sequence.first_position; p < end; ++p, ++row) {
      const int32_t token = batch.ids[row];
      for (size_t g = 0; g < kv.size(); ++g) At(sequence, g, p) = {token, p};
      if (token == fake.poison_token) {
        status = absl::DataLossError("an expert could not be read");
      }
    }
    statuses.push_back(status);
  }
  CHECK(row == static_cast<int32_t>(batch.ids.size()));
  return statuses;
}

void Model::State::FillLogits(const ForwardBatch& batch) {
  logits.clear();
  for (int32_t row : batch.logit_rows) {
    for (const SequenceRows& sequence : batch.sequences) {
      const int32_t offset = row - sequence.first_row;
      if (offset < 0 || offset >= sequence.rows) continue;
      AppendLogits(sequence, sequence.first_position + offset);
    }
  }
  CHECK(logits.size() ==
        batch.logit_rows.size() * static_cast<size_t>(fake.vocab));
}

void Model::State::AppendLogits(const SequenceRows& sequence,
                                int32_t position) {
  const uint64_t history = History(sequence, position);
  if (At(sequence, 0, position).token == fake.nan_token) {
    logits.resize(logits.size() + static_cast<size_t>(fake.vocab),
                  std::numeric_limits<float>::quiet_NaN());
    return;
  }
  const bool end = position + 1 >= fake.eos_after;
  for (int32_t id = 0; id < fake.vocab; ++id) {
    const uint64_t bits =
        Mix(history + static_cast<uint64_t>(id) * 0x9e3779b97f4a7c15u);
    const float uniform = static_cast<float>(bits >> 40) * 0x1.0p-24f;
    const float eos_logit = end ? 100.0f : -100.0f;
    logits.push_back(id == fake.eos ? eos_logit : 8.0f * uniform - 4.0f);
  }
}

namespace {

// What the next Model::Load makes; set by MakeFakeModel alone.
const FakeModelConfig* next_config = nullptr;
FakeModelControl* next_control = nullptr;

}  // namespace

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::~Model() = default;

absl::StatusOr<std::unique_ptr<Model>> Model::Load(PackedModel packed,
                                                   const ModelOptions& options,
                                                   Metrics& metrics) {
  return Load(std::move(packed), options, metrics, nullptr);
}

absl::StatusOr<std::unique_ptr<Model>> Model::Load(
    PackedModel packed, const ModelOptions&, Metrics&,
    std::unique_ptr<BlobReader>) {
  CHECK(next_config != nullptr) << "use MakeFakeModel";
  auto state = std::make_unique<State>();
  state->fake = *next_config;
  state->control = next_control;
  state->packed = std::move(packed);
  state->config.vocab = next_config->vocab;
  state->config.context_length = next_config->context;
  state->plan.kv_groups = next_config->kv_groups;
  for (const KvGroup& group : next_config->kv_groups) {
    state->kv.emplace_back(static_cast<size_t>(group.blocks) *
                           kernels::kKvBlockTokens);
  }
  return std::unique_ptr<Model>(new Model(std::move(state)));
}

absl::StatusOr<ForwardResult> Model::Forward(const ForwardBatch& batch) {
  CHECK(!batch.ids.empty() &&
        batch.ids.size() <= static_cast<size_t>(state_->fake.max_batch_tokens));
  RETURN_IF_ERROR(state_->control->Enter(batch));
  if (batch.watch.stop.stop_requested()) {
    return absl::UnavailableError("stopped");
  }
  if (batch.watch.progress) RETURN_IF_ERROR(batch.watch.progress());
  std::vector<absl::Status> statuses = state_->Store(batch);
  state_->FillLogits(batch);
  return ForwardResult{.logits = state_->logits,
                       .sequence_status = std::move(statuses)};
}

void Model::set_tap(ForwardTap) {}
const PackedModel& Model::packed() const { return state_->packed; }
const ModelConfig& Model::config() const { return state_->config; }
const MemoryPlan& Model::memory() const { return state_->plan; }
int32_t Model::context() const { return state_->fake.context; }
int32_t Model::max_batch_tokens() const {
  return state_->fake.max_batch_tokens;
}
std::span<const KvGroup> Model::kv_groups() const {
  return state_->plan.kv_groups;
}
const std::string& Model::kv_type() const {
  static const std::string type = "f32";
  return type;
}
CacheSnapshot Model::cache_snapshot() const {
  CacheSnapshot snapshot;
  snapshot.loads = static_cast<uint64_t>(state_->control->forwards());
  return snapshot;
}
std::string_view Model::isa() const { return "fake"; }
std::string_view Model::activations() const { return "f32"; }
int32_t Model::threads() const { return 1; }

std::unique_ptr<Model> MakeFakeModel(const FakeModelConfig& config,
                                     FakeModelControl& control) {
  Metrics metrics;
  next_config = &config;
  next_control = &control;
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Load(PackedModel(), ModelOptions(), metrics);
  next_config = nullptr;
  next_control = nullptr;
  CHECK(model.ok());
  return *std::move(model);
}

}  // namespace bullpen
