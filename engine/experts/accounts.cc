#include "engine/experts/accounts.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace bullpen {

CacheAccounts::CacheAccounts(const ExpertCatalog& catalog, const Link& link,
                             Metrics& metrics)
    : metrics_(metrics),
      bytes_(metrics.TransferBytesBetween(link.from, link.to)) {
  layers_.reserve(catalog.layers.size());
  for (const ExpertCatalog::Layer& layer : catalog.layers) {
    const prometheus::Labels label = {{"layer", absl::StrCat(layers_.size())}};
    layers_.push_back({.blob_bytes = layer.blob_bytes,
                       .guesses = std::vector<Guess>(layer.experts.size()),
                       .lookups = &metrics.layer_lookups.Add(label),
                       .hits = &metrics.layer_hits.Add(label),
                       .slots = &metrics.layer_slots.Add(label)});
  }
}

void CacheAccounts::LookUp(ExpertKey key, SlotState found) {
  LayerBooks& layer = layers_[key.layer];
  Guess& guess = layer.guesses[key.expert];
  const bool resident = found == SlotState::kResident;
  if (found == SlotState::kEmpty || guess != Guess::kOpen) {
    // What still loads for a step that was given up was missed before.
    ++(resident ? step_.resident : step_.missed);
  } else if (resident) {
    ++step_.prefetched;
    guess = Guess::kNone;
    transferred_.prefetch_used += layer.blob_bytes;
    bytes_.prefetch_used.Increment(static_cast<double>(layer.blob_bytes));
  } else {
    ++step_.prefetched_late;
    guess = Guess::kLate;
    guess_bytes_under_way_ -= layer.blob_bytes;
  }
}

void CacheAccounts::EndLookups(int32_t layer_index, Phase phase) {
  const LookupCounts step = std::exchange(step_, {});
  LayerBooks& layer = layers_[layer_index];
  const bool decode = phase == Phase::kDecode;
  LookupCounts& total = decode ? decode_ : prefill_;
  Metrics::Lookups& metric =
      decode ? metrics_.lookups_decode : metrics_.lookups_prefill;
  const auto add = [](uint64_t n, uint64_t& sum, prometheus::Counter& counter) {
    if (n == 0) return;
    sum += n;
    counter.Increment(static_cast<double>(n));
  };
  add(step.resident, total.resident, metric.resident);
  add(step.prefetched, total.prefetched, metric.prefetched);
  add(step.prefetched_late, total.prefetched_late, metric.prefetched_late);
  add(step.missed, total.missed, metric.missed);
  add(step.lookups(), layer.sums.lookups, *layer.lookups);
  add(step.hits(), layer.sums.hits, *layer.hits);
}

// A slot's memory goes from one state to another.
void CacheAccounts::Move(const LayerBooks& layer, prometheus::Gauge& from,
                         prometheus::Gauge& to) {
  from.Decrement(static_cast<double>(layer.blob_bytes));
  to.Increment(static_cast<double>(layer.blob_bytes));
}

void CacheAccounts::LoadStarted(ExpertKey key, bool guess) {
  LayerBooks& layer = layers_[key.layer];
  metrics_.expert_slots_loading.Increment();
  Move(layer, metrics_.state_bytes.empty, metrics_.state_bytes.loading);
  if (!guess) return;
  layer.guesses[key.expert] = Guess::kOpen;
  guess_bytes_under_way_ += layer.blob_bytes;
}

void CacheAccounts::LoadEnded(ExpertKey key, bool ok, double seconds) {
  LayerBooks& layer = layers_[key.layer];
  Guess& guess = layer.guesses[key.expert];
  metrics_.expert_slots_loading.Decrement();
  Move(layer, metrics_.state_bytes.loading,
       ok ? metrics_.state_bytes.resident : metrics_.state_bytes.empty);
  metrics_.transfer_seconds.Observe(seconds);
  if (guess == Guess::kOpen) guess_bytes_under_way_ -= layer.blob_bytes;
  if (!ok) {
    guess = Guess::kNone;
    ++load_failures_;
    metrics_.expert_load_failures.Increment();
    return;
  }
  ++loads_;
  bytes_loaded_ += static_cast<uint64_t>(layer.blob_bytes);
  metrics_.expert_slots_resident.Increment();
  if (guess == Guess::kOpen) return;  // counted when it is used or evicted
  const bool late = std::exchange(guess, Guess::kNone) == Guess::kLate;
  (late ? transferred_.prefetch_used : transferred_.demand) += layer.blob_bytes;
  (late ? bytes_.prefetch_used : bytes_.demand)
      .Increment(static_cast<double>(layer.blob_bytes));
}

void CacheAccounts::GivenUp(ExpertKey key) {
  LayerBooks& layer = layers_[key.layer];
  Guess& guess = layer.guesses[key.expert];
  if (guess == Guess::kOpen) guess_bytes_under_way_ -= layer.blob_bytes;
  if (guess != Guess::kNone) guess = Guess::kGivenUp;
}

void CacheAccounts::LoadCancelled(ExpertKey key, int64_t bytes) {
  LayerBooks& layer = layers_[key.layer];
  const bool guess =
      std::exchange(layer.guesses[key.expert], Guess::kNone) == Guess::kGivenUp;
  metrics_.expert_slots_loading.Decrement();
  Move(layer, metrics_.state_bytes.loading, metrics_.state_bytes.empty);
  bytes_loaded_ += static_cast<uint64_t>(bytes);
  (guess ? transferred_.prefetch_wasted : transferred_.demand) += bytes;
  (guess ? bytes_.prefetch_wasted : bytes_.demand)
      .Increment(static_cast<double>(bytes));
}

void CacheAccounts::Evicted(ExpertKey key, bool by_guess) {
  metrics_.expert_slots_resident.Decrement();
  (by_guess ? metrics_.evictions_prefetch : metrics_.evictions_demand)
      .Increment();
  LayerBooks& layer = layers_[key.layer];
  Move(layer, metrics_.state_bytes.resident, metrics_.state_bytes.empty);
  Guess& guess = layer.guesses[key.expert];
  if (std::exchange(guess, Guess::kNone) != Guess::kOpen) return;
  transferred_.prefetch_wasted += layer.blob_bytes;
  bytes_.prefetch_wasted.Increment(static_cast<double>(layer.blob_bytes));
}

void CacheAccounts::HasSlots(int32_t layer, int32_t slots) {
  LayerBooks& books = layers_[layer];
  books.slots->Set(slots);
  const int64_t before = std::exchange(books.slots_now, slots);
  metrics_.state_bytes.empty.Increment(
      static_cast<double>((slots - before) * books.blob_bytes));
}

void CacheAccounts::Stalled(double seconds, Phase phase) {
  stall_seconds_ += seconds;
  (phase == Phase::kDecode ? metrics_.stall_seconds_decode
                           : metrics_.stall_seconds_prefill)
      .Increment(seconds);
}

void CacheAccounts::SetLinkBusy(double seconds) {
  metrics_.link_busy_seconds.Increment(seconds - link_busy_seconds_);
  link_busy_seconds_ = seconds;
}

}  // namespace bullpen
