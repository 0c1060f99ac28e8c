#include "engine/experts/cache.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace bullpen {

namespace {

std::vector<SlotPool::LayerShape> Shapes(const ExpertCatalog& catalog,
                                         const CacheConfig& config) {
  const std::vector<int32_t>& floors =
      config.floors.empty() ? config.slots : config.floors;
  CHECK(floors.size() == config.slots.size()) << floors.size();
  std::vector<SlotPool::LayerShape> shapes;
  for (size_t l = 0; l < config.slots.size(); ++l) {
    const ExpertCatalog::Layer& layer = catalog.layers[l];
    CHECK(layer.blob_bytes > 0 && layer.blob_bytes % 4096 == 0)
        << layer.blob_bytes;
    shapes.push_back({.experts = static_cast<int32_t>(layer.experts.size()),
                      .slots = config.slots[l],
                      .floor = floors[l],
                      .blob_bytes = layer.blob_bytes});
  }
  return shapes;
}

}  // namespace

int64_t ExpertCache::ArenaBytes(const ExpertCatalog& catalog,
                                std::span<const int32_t> slots) {
  CHECK(slots.size() == catalog.layers.size())
      << slots.size() << " layers of slots for " << catalog.layers.size();
  int64_t bytes = 0;
  for (size_t l = 0; l < slots.size(); ++l) {
    bytes += slots[l] * catalog.layers[l].blob_bytes;
  }
  return bytes;
}

ExpertCache::ExpertCache(const ExpertCatalog& catalog,
                         const CacheConfig& config, std::span<std::byte> arena,
                         TransferQueue& transfers, Metrics& metrics)
    : catalog_(catalog),
      transfers_(transfers),
      accounts_(catalog, transfers.link(), metrics),
      arena_bytes_(ArenaBytes(catalog, config.slots)),
      slots_(Shapes(catalog, config),
             {.kind = config.policy,
              .half_life_tokens = config.half_life_tokens}) {
  CHECK(static_cast<int64_t>(arena.size()) >= arena_bytes_)
      << arena.size() << " bytes for " << arena_bytes_;
  std::byte* next = arena.data();
  uint64_t ticket = 0;
  for (size_t l = 0; l < catalog.layers.size(); ++l) {
    const ExpertCatalog::Layer& layer = catalog.layers[l];
    for (int32_t slot = 0; slot < config.slots[l]; ++slot) {
      places_.push_back(next);
      next += layer.blob_bytes;
    }
    first_tickets_.push_back(ticket);
    ticket += layer.experts.size();
    accounts_.HasSlots(static_cast<int32_t>(l), config.slots[l]);
  }
  if (config.verification == Verification::kOnce) verified_.resize(ticket);
  if (config.oracle_window > 0) {
    oracle_.emplace(catalog_, config.oracle_window, metrics);
  }
  metrics.expert_slots.Set(slots_.slots());
  metrics.expert_slot_bytes.Set(static_cast<double>(arena_bytes_));
}

ExpertCache::~ExpertCache() {
  CHECK(layer_ < 0) << "a lease of layer " << layer_ << " is out";
  // The transfer threads write into the arena, of what they have begun.
  for (int32_t l = 0; l < slots_.layers(); ++l) CancelUnused(l);
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

std::span<const ReadyExpert> ExpertCache::Acquisition::Next(
    const std::stop_token& stop) {
  return cache_->NextGroup(stop);
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
  LayerSlots& slots = slots_.layer(layer_index);
  const bool judge = oracle_.has_value() && phase == Phase::kDecode;
  if (judge) oracle_->BeginStep(layer_index, slots);
  slots_.BeginStep(layer_index, tokens, phase);
  for (size_t i = 0; i < experts.size(); ++i) {
    const int32_t expert = experts[i];
    const ExpertKey key{.layer = layer_index, .expert = expert};
    const int32_t slot = slots.Use(expert, counts[i]);
    accounts_.LookUp(key, slot < 0 ? SlotState::kEmpty : slots.state(slot));
    if (slot < 0) {
      waiting_.push_back(expert);
      continue;
    }
    slots.Lease(slot);
    if (slots.state(slot) == SlotState::kResident) {
      ready_.push_back({.expert = expert, .blob = Blob(layer_index, slot)});
    } else {
      transfers_.Promote(Ticket(key));
      ++arriving_;
    }
  }
  accounts_.EndLookups(layer_index, phase);
  if (judge) {
    oracle_->Record({.layer = layer_index,
                     .experts = experts,
                     .tokens = tokens,
                     .hits = static_cast<int32_t>(ready_.size())});
  }
  CancelUnused(layer_index);
  std::reverse(waiting_.begin(), waiting_.end());
  StartLoads();
  if (judge) oracle_->Settle(layer_index, slots_.share(layer_index));
  return Acquisition(this);
}

std::span<const ReadyExpert> ExpertCache::NextGroup(
    const std::stop_token& stop) {
  owner_.Check();
  ReleaseGroup();
  // A cancelled guess that is wanted after all has to be asked for again.
  if (arriving_ > 0) TakeResults();
  StartLoads();
  // Loads of other layers end here too: wait until one of ours has.
  while (ready_.empty() && (arriving_ > 0 || !waiting_.empty()) &&
         !stop.stop_requested()) {
    WaitForLoads(stop);
    StartLoads();
  }
  std::swap(group_, ready_);
  return group_;
}

void ExpertCache::ReleaseGroup() {
  LayerSlots& slots = slots_.layer(layer_);
  for (const ReadyExpert& given : group_) {
    if (given.status.ok()) slots.Release(slots.Find(given.expert));
  }
  group_.clear();
}

void ExpertCache::EndStep() {
  ReleaseGroup();
  // Whoever gave up early leaves slots that hold an expert, or load one.
  std::swap(group_, ready_);
  ReleaseGroup();
  waiting_.clear();
  const int32_t ended = std::exchange(layer_, -1);
  if (std::exchange(arriving_, 0) == 0) return;
  LayerSlots& slots = slots_.layer(ended);
  for (int32_t slot = 0; slot < slots.slots(); ++slot) {
    if (slots.leased(slot)) slots.Release(slot);
  }
  CancelUnused(ended);
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
  const bool guess = cause == Cause::kPrefetch;
  const int32_t slot =
      guess ? slots_.ClaimForGuess(key) : slots_.ClaimForDemand(key);
  if (slot < 0) return false;
  if (slots_.evicted().expert >= 0) accounts_.Evicted(slots_.evicted(), guess);
  if (const int32_t giver = slots_.giver(); giver >= 0) {
    accounts_.HasSlots(giver, slots_.layer(giver).slots());
    accounts_.HasSlots(key.layer, slots_.layer(key.layer).slots());
  }
  accounts_.LoadStarted(key, guess);
  const ExpertCatalog::Layer& source = catalog_.layers[key.layer];
  const uint64_t ticket = Ticket(key);
  const absl::Status status =
      transfers_.Submit({.ticket = ticket,
                         .source = source.experts[key.expert],
                         .target = places_[slots_.layer(key.layer).place(slot)],
                         .bytes = source.blob_bytes,
                         .cause = cause,
                         .verify = verified_.empty() || !verified_[ticket]});
  CHECK(status.ok()) << status.ToString();
  return true;
}

// Guesses of the layer that it did not take up, and what a step that was given
// up had asked for: the link has better to do.
void ExpertCache::CancelUnused(int32_t layer_index) {
  const LayerSlots& slots = slots_.layer(layer_index);
  if (slots.loading() == 0) return;
  bool cancelled = false;
  for (int32_t slot = 0; slot < slots.slots(); ++slot) {
    if (slots.state(slot) != SlotState::kLoading || slots.leased(slot)) {
      continue;
    }
    const ExpertKey key{.layer = layer_index, .expert = slots.expert(slot)};
    if (!transfers_.Cancel(Ticket(key))) continue;
    accounts_.GivenUp(key);
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
    if (slots_.layer(key.layer).Find(key.expert) >= 0) continue;
    if (StartLoad(key, Cause::kPrefetch)) ++begun;
  }
  return begun;
}

bool ExpertCache::Expect(ExpertKey key) {
  owner_.Check();
  LayerSlots& slots = slots_.layer(key.layer);
  const int32_t slot = slots.Find(key.expert);
  if (slot >= 0 && key.layer != layer_) slots.Expect(slot);
  return slot >= 0;
}

void ExpertCache::SetScores(int32_t layer, std::span<const float> scores) {
  LayerSlots& slots = slots_.layer(layer);
  CHECK(std::ssize(scores) == slots.experts()) << scores.size();
  for (int32_t e = 0; e < slots.experts(); ++e) {
    slots.SetScore(e, scores[e]);
  }
}

void ExpertCache::WaitForLoads(const std::stop_token& stop) {
  using SteadyClock = std::chrono::steady_clock;
  if (arriving_ == 0) {
    // Guesses fill the layer: the step needs one of their slots.
    const LayerSlots& slots = slots_.layer(layer_);
    for (int32_t slot = 0; slot < slots.slots(); ++slot) {
      if (slots.state(slot) == SlotState::kLoading) {
        transfers_.Promote(
            Ticket({.layer = layer_, .expert = slots.expert(slot)}));
      }
    }
  }
  const SteadyClock::time_point start = SteadyClock::now();
  results_.clear();
  transfers_.Wait(results_, stop);
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
  const ExpertKey key = KeyOf(result.ticket);
  LayerSlots& slots = slots_.layer(key.layer);
  const int32_t slot = slots.Find(key.expert);
  const bool cancelled = absl::IsCancelled(result.status);
  const bool asked_for = key.layer == layer_ && slots.leased(slot);
  slots.FinishLoad(slot, result.status.ok());

  if (cancelled) {
    accounts_.LoadCancelled(key, result.bytes);
    // Asked for once more before it had ended: from the start.
    if (asked_for) {
      --arriving_;
      waiting_.push_back(key.expert);
    }
    return;
  }
  accounts_.LoadEnded(key, result.status.ok(), result.seconds);
  ReadyExpert arrived{.expert = key.expert};
  if (result.status.ok()) {
    arrived.blob = Blob(key.layer, slot);
    if (!verified_.empty()) verified_[result.ticket] = true;
  } else {
    const ExpertLocation& source =
        catalog_.layers[key.layer].experts[key.expert];
    arrived.status = absl::DataLossError(absl::StrCat(
        "expert ", key.expert, " of layer ", key.layer, " in ",
        catalog_.files[source.file], ": ", result.status.message()));
  }
  if (asked_for) {
    --arriving_;
    ready_.push_back(std::move(arrived));
  }
}

const std::byte* ExpertCache::Blob(int32_t layer, int32_t slot) const {
  return places_[slots_.layer(layer).place(slot)];
}

uint64_t ExpertCache::Ticket(ExpertKey key) const {
  return first_tickets_[key.layer] + static_cast<uint64_t>(key.expert);
}

ExpertKey ExpertCache::KeyOf(uint64_t ticket) const {
  const int32_t layer =
      static_cast<int32_t>(std::ranges::upper_bound(first_tickets_, ticket) -
                           first_tickets_.begin()) -
      1;
  return {.layer = layer,
          .expert = static_cast<int32_t>(ticket - first_tickets_[layer])};
}

CacheSnapshot ExpertCache::Snapshot() const {
  CacheSnapshot snapshot{.arena_bytes = arena_bytes_,
                         .loads = accounts_.loads(),
                         .load_failures = accounts_.load_failures(),
                         .bytes_loaded = accounts_.bytes_loaded(),
                         .decode = accounts_.decode(),
                         .prefill = accounts_.prefill(),
                         .transferred = accounts_.transferred(),
                         .stall_seconds = accounts_.stall_seconds(),
                         .link_busy_seconds = accounts_.link_busy_seconds()};
  if (oracle_.has_value()) snapshot.recent = oracle_->hits();
  snapshot.layers.reserve(catalog_.layers.size());
  for (int32_t l = 0; l < slots_.layers(); ++l) {
    const LayerSlots& slots = slots_.layer(l);
    const CacheAccounts::Layer& sums = accounts_.layer(l);
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
