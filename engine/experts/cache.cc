#include "engine/experts/cache.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace bullpen {

absl::StatusOr<std::unique_ptr<ExpertCache>> ExpertCache::Create(
    const ExpertCatalog& catalog, const CacheConfig& config,
    TransferQueue& transfers, Metrics& metrics) {
  CHECK(config.slots.size() == catalog.layers.size())
      << config.slots.size() << " layers of slots for "
      << catalog.layers.size();
  int64_t bytes = 0;
  for (size_t l = 0; l < config.slots.size(); ++l) {
    const int64_t blob_bytes = catalog.layers[l].blob_bytes;
    CHECK(blob_bytes > 0 && blob_bytes % 4096 == 0) << blob_bytes;
    bytes += config.slots[l] * blob_bytes;
  }
  ASSIGN_OR_RETURN(HugeBuffer arena,
                   HugeBuffer::Allocate(bytes, HugeBuffer::Touch::kNow,
                                        config.memory_nodes));

  auto cache = std::unique_ptr<ExpertCache>(
      new ExpertCache(catalog, transfers, metrics, std::move(arena)));
  PolicyConfig policy{.kind = config.policy,
                      .half_life_tokens = config.half_life_tokens,
                      .choice = &cache->half_life_,
                      .layers = static_cast<int32_t>(config.slots.size())};
  std::byte* next = cache->arena_.data();
  uint64_t slots = 0;
  cache->layers_.reserve(config.slots.size());
  for (size_t l = 0; l < config.slots.size(); ++l) {
    const int32_t experts =
        static_cast<int32_t>(catalog.layers[l].experts.size());
    cache->layers_.push_back(
        {.slots = LayerSlots(experts, config.slots[l], policy),
         .arena = next,
         .first_ticket = slots});
    next += config.slots[l] * catalog.layers[l].blob_bytes;
    slots += static_cast<uint64_t>(config.slots[l]);
  }
  if (config.oracle_window > 0) {
    cache->oracle_.emplace(catalog, config.oracle_window, metrics);
  }
  metrics.expert_slots.Set(static_cast<double>(slots));
  metrics.expert_slot_bytes.Set(static_cast<double>(bytes));
  return cache;
}

ExpertCache::ExpertCache(const ExpertCatalog& catalog, TransferQueue& transfers,
                         Metrics& metrics, HugeBuffer arena)
    : catalog_(catalog),
      transfers_(transfers),
      accounts_(catalog, metrics),
      arena_(std::move(arena)) {}

ExpertCache::~ExpertCache() {
  CHECK(layer_ < 0) << "a lease of layer " << layer_ << " is out";
  // The transfer threads write into the arena.
  while (transfers_.under_way() > 0) {
    results_.clear();
    transfers_.Wait(results_);
  }
}

ExpertCache::Acquisition::Acquisition(Acquisition&& other) noexcept
    : cache_(std::exchange(other.cache_, nullptr)) {}

ExpertCache::Acquisition::~Acquisition() {
  if (cache_ != nullptr) cache_->EndStep();
}

std::span<const ReadyExpert> ExpertCache::Acquisition::Next() {
  return cache_->NextGroup();
}

bool ExpertCache::Acquisition::loads() const {
  return cache_->arriving_ > 0 || !cache_->waiting_.empty();
}

bool ExpertCache::Acquisition::waits() const {
  return loads() && cache_->ready_.empty();
}

ExpertCache::Acquisition ExpertCache::Acquire(int32_t layer_index,
                                              std::span<const int32_t> experts,
                                              std::span<const int32_t> counts,
                                              int32_t tokens, Phase phase) {
  owner_.Check();
  CHECK(layer_ < 0) << "layer " << layer_ << " has an Acquisition already";
  CHECK(experts.size() == counts.size());
  if (transfers_.under_way() > 0) TakeResults();
  layer_ = layer_index;
  phase_ = phase;
  Layer& layer = layers_[layer_index];
  layer.slots.BeginStep(tokens, phase);
  for (size_t i = 0; i < experts.size(); ++i) {
    const int32_t expert = experts[i];
    const int32_t slot = layer.slots.Use(expert, counts[i]);
    accounts_.LookUp({.layer = layer_index, .expert = expert},
                     slot < 0 ? SlotState::kEmpty : layer.slots.state(slot));
    if (slot < 0) {
      waiting_.push_back(expert);
      continue;
    }
    layer.slots.Lease(slot);
    if (layer.slots.state(slot) == SlotState::kResident) {
      ready_.push_back({.expert = expert, .blob = Blob(layer_index, slot)});
    } else {
      transfers_.Promote(layer.first_ticket + static_cast<uint64_t>(slot));
      ++arriving_;
    }
  }
  accounts_.EndLookups(layer_index, phase);
  const bool judge = oracle_.has_value() && phase == Phase::kDecode;
  if (judge) {
    oracle_->Record({.layer = layer_index,
                     .experts = experts,
                     .tokens = tokens,
                     .hits = static_cast<int32_t>(ready_.size())},
                    layer.slots);
  }
  CancelUnused(layer_index);
  std::reverse(waiting_.begin(), waiting_.end());
  StartLoads();
  if (judge) oracle_->Settle(layer_index, layer.slots.slots());
  return Acquisition(this);
}

std::span<const ReadyExpert> ExpertCache::NextGroup() {
  owner_.Check();
  ReleaseGroup();
  // A cancelled guess that is wanted after all has to be asked for again.
  if (arriving_ > 0) TakeResults();
  StartLoads();
  // Loads of other layers end here too: wait until one of ours has.
  while (ready_.empty() && (arriving_ > 0 || !waiting_.empty())) {
    WaitForLoads();
    StartLoads();
  }
  std::swap(group_, ready_);
  return group_;
}

void ExpertCache::ReleaseGroup() {
  LayerSlots& slots = layers_[layer_].slots;
  for (const ReadyExpert& given : group_) {
    if (given.status.ok()) slots.Release(slots.Find(given.expert));
  }
  group_.clear();
}

void ExpertCache::EndStep() {
  ReleaseGroup();
  // Whoever gave up early leaves slots that hold or will hold an expert.
  std::swap(group_, ready_);
  ReleaseGroup();
  if (arriving_ > 0) {
    LayerSlots& slots = layers_[layer_].slots;
    for (int32_t slot = 0; slot < slots.slots(); ++slot) {
      if (slots.leased(slot)) slots.Release(slot);
    }
    arriving_ = 0;
  }
  waiting_.clear();
  layer_ = -1;
}

void ExpertCache::StartLoads() {
  while (
      !waiting_.empty() &&
      StartLoad({.layer = layer_, .expert = waiting_.back()}, Cause::kDemand)) {
    waiting_.pop_back();
    ++arriving_;
  }
}

bool ExpertCache::StartLoad(ExpertKey key, Cause cause) {
  if (transfers_.under_way() >= transfers_.capacity()) return false;
  Layer& layer = layers_[key.layer];
  const bool guess = cause == Cause::kPrefetch;
  const int32_t slot = guess ? layer.slots.ClaimForGuess(key.expert)
                             : layer.slots.ClaimForDemand(key.expert);
  if (slot < 0) return false;
  if (const int32_t evicted = layer.slots.evicted(); evicted >= 0) {
    accounts_.Evicted({.layer = key.layer, .expert = evicted}, guess);
  }
  accounts_.LoadStarted(key, guess);
  const ExpertCatalog::Layer& source = catalog_.layers[key.layer];
  const absl::Status status = transfers_.Submit(
      {.ticket = layer.first_ticket + static_cast<uint64_t>(slot),
       .source = source.experts[key.expert],
       .target = layer.arena + slot * source.blob_bytes,
       .bytes = source.blob_bytes,
       .cause = cause});
  CHECK(status.ok()) << status.ToString();
  return true;
}

// Guesses of the layer that it did not take up: the link has better to do.
void ExpertCache::CancelUnused(int32_t layer_index) {
  const Layer& layer = layers_[layer_index];
  if (layer.slots.loading() == 0) return;
  bool cancelled = false;
  for (int32_t slot = 0; slot < layer.slots.slots(); ++slot) {
    if (layer.slots.state(slot) != SlotState::kLoading ||
        layer.slots.leased(slot)) {
      continue;
    }
    if (!transfers_.Cancel(layer.first_ticket + static_cast<uint64_t>(slot))) {
      continue;
    }
    accounts_.GivenUp(
        {.layer = layer_index, .expert = layer.slots.expert(slot)});
    cancelled = true;
  }
  // The slots of those of which nothing was being read are free already.
  if (cancelled) TakeResults();
}

int32_t ExpertCache::Prefetch(std::span<const ExpertKey> experts) {
  owner_.Check();
  if (transfers_.under_way() > 0) TakeResults();
  int32_t begun = 0;
  for (const ExpertKey& key : experts) {
    // Half of the queue stays free for demands.
    if (transfers_.under_way() >= transfers_.capacity() / 2) break;
    // The layer that runs knows what it needs.
    if (key.layer == layer_) continue;
    if (layers_[key.layer].slots.Find(key.expert) >= 0) continue;
    if (StartLoad(key, Cause::kPrefetch)) ++begun;
  }
  return begun;
}

bool ExpertCache::Expect(ExpertKey key) {
  owner_.Check();
  LayerSlots& slots = layers_[key.layer].slots;
  const int32_t slot = slots.Find(key.expert);
  if (slot >= 0 && key.layer != layer_) slots.Expect(slot);
  return slot >= 0;
}

void ExpertCache::SetScores(int32_t layer, std::span<const float> scores) {
  LayerSlots& slots = layers_[layer].slots;
  CHECK(std::ssize(scores) == slots.experts()) << scores.size();
  for (int32_t e = 0; e < slots.experts(); ++e) {
    slots.SetScore(e, scores[e]);
  }
}

void ExpertCache::WaitForLoads() {
  using SteadyClock = std::chrono::steady_clock;
  if (arriving_ == 0) {
    // Guesses fill the layer: the step needs one of their slots.
    const Layer& layer = layers_[layer_];
    for (int32_t slot = 0; slot < layer.slots.slots(); ++slot) {
      if (layer.slots.state(slot) == SlotState::kLoading) {
        transfers_.Promote(layer.first_ticket + static_cast<uint64_t>(slot));
      }
    }
  }
  const SteadyClock::time_point start = SteadyClock::now();
  results_.clear();
  transfers_.Wait(results_);
  const double waited =
      std::chrono::duration<double>(SteadyClock::now() - start).count();
  accounts_.Stalled(waited, phase_);
  SettleResults();
}

void ExpertCache::TakeResults() {
  results_.clear();
  transfers_.Poll(results_);
  SettleResults();
}

void ExpertCache::SettleResults() {
  if (results_.empty()) return;
  for (const TransferResult& result : results_) Settle(result);
  accounts_.SetLinkBusy(transfers_.busy_seconds());
}

void ExpertCache::Settle(const TransferResult& result) {
  // The layer whose tickets begin at or before this one.
  const auto after = std::upper_bound(
      layers_.begin(), layers_.end(), result.ticket,
      [](uint64_t ticket, const Layer& l) { return ticket < l.first_ticket; });
  Layer& layer = *std::prev(after);
  const int32_t layer_index = static_cast<int32_t>(&layer - layers_.data());
  const int32_t slot = static_cast<int32_t>(result.ticket - layer.first_ticket);
  const int32_t expert = layer.slots.expert(slot);
  const bool cancelled = absl::IsCancelled(result.status);
  const bool asked_for = layer_index == layer_ && layer.slots.leased(slot);
  layer.slots.FinishLoad(slot, result.status.ok());

  if (cancelled) {
    accounts_.LoadCancelled(result.bytes);
    // Asked for once more before it had ended: from the start.
    if (asked_for) {
      --arriving_;
      waiting_.push_back(expert);
    }
    return;
  }
  accounts_.LoadEnded({.layer = layer_index, .expert = expert},
                      result.status.ok(), result.seconds);
  ReadyExpert arrived{.expert = expert};
  if (result.status.ok()) {
    arrived.blob = Blob(layer_index, slot);
  } else {
    const ExpertLocation& source = catalog_.layers[layer_index].experts[expert];
    arrived.status = absl::DataLossError(absl::StrCat(
        "expert ", expert, " of layer ", layer_index, " in ",
        catalog_.files[source.file], ": ", result.status.message()));
  }
  if (asked_for) {
    --arriving_;
    ready_.push_back(std::move(arrived));
  }
}

const std::byte* ExpertCache::Blob(int32_t layer, int32_t slot) const {
  return layers_[layer].arena + slot * catalog_.layers[layer].blob_bytes;
}

CacheSnapshot ExpertCache::Snapshot() const {
  CacheSnapshot snapshot{.arena_bytes = arena_.size(),
                         .loads = accounts_.loads(),
                         .load_failures = accounts_.load_failures(),
                         .bytes_loaded = accounts_.bytes_loaded(),
                         .decode = accounts_.decode(),
                         .prefill = accounts_.prefill(),
                         .transferred = accounts_.transferred(),
                         .stall_seconds = accounts_.stall_seconds(),
                         .link_busy_seconds = accounts_.link_busy_seconds()};
  if (oracle_.has_value()) snapshot.recent = oracle_->hits();
  snapshot.layers.reserve(layers_.size());
  for (size_t l = 0; l < layers_.size(); ++l) {
    const LayerSlots& slots = layers_[l].slots;
    const CacheAccounts::Layer& sums = accounts_.layer(static_cast<int32_t>(l));
    CacheSnapshot::Layer& view = snapshot.layers.emplace_back(
        CacheSnapshot::Layer{.experts = slots.experts(),
                             .slots = slots.slots(),
                             .slot_bytes = catalog_.layers[l].blob_bytes,
                             .lookups = sums.lookups,
                             .hits = sums.hits});
    view.resident.reserve(static_cast<size_t>(slots.resident()));
    view.scores.reserve(static_cast<size_t>(slots.resident()));
    for (int32_t e = 0; e < view.experts; ++e) {
      const int32_t slot = slots.Find(e);
      if (slot < 0) continue;
      if (slots.state(slot) == SlotState::kLoading) {
        view.loading.push_back(e);
        continue;
      }
      view.resident.push_back(e);
      view.scores.push_back(static_cast<float>(slots.Score(e)));
    }
  }
  return snapshot;
}

}  // namespace bullpen
