#pragma once

#include <cstdint>
#include <vector>

#include "base/metrics.h"
#include "engine/experts/expert.h"
#include "engine/experts/layer_slots.h"

namespace bullpen {

// How lookups ended: each is in exactly one of these.
struct LookupCounts {
  uint64_t resident = 0;
  uint64_t prefetched = 0;       // the first use of a guess that had arrived
  uint64_t prefetched_late = 0;  // of one that was under way
  uint64_t missed = 0;

  uint64_t hits() const { return resident + prefetched; }
  uint64_t lookups() const { return hits() + prefetched_late + missed; }
};

// Bytes that have arrived, by what for; those of a guess that was neither used
// nor evicted yet are in none.
struct TransferredBytes {
  int64_t demand = 0;
  int64_t prefetch_used = 0;
  int64_t prefetch_wasted = 0;
};

// The books of an expert cache: what each lookup found and what each byte was
// moved for, as numbers and as metrics. One thread.
class CacheAccounts {
 public:
  struct Layer {
    uint64_t lookups = 0;
    uint64_t hits = 0;
  };

  // `link`: the one that loads come over.
  CacheAccounts(const ExpertCatalog& catalog, const Link& link,
                Metrics& metrics);

  // A step of `layer` looks up an expert and finds it in a slot of this state;
  // kEmpty: in none.
  void LookUp(ExpertKey key, SlotState found);
  // The step's lookups are complete.
  void EndLookups(int32_t layer, Phase phase);
  void LoadStarted(ExpertKey key, bool guess);
  void LoadEnded(ExpertKey key, bool ok, double seconds);
  // A load is not wanted any more; and it has ended, having moved so many
  // bytes.
  void GivenUp(ExpertKey key);
  void LoadCancelled(ExpertKey key, int64_t bytes);
  void Evicted(ExpertKey key, bool by_guess);
  void HasSlots(int32_t layer, int32_t slots);
  void Stalled(double seconds, Phase phase);
  void SetLinkBusy(double seconds);  // since the start

  const LookupCounts& decode() const { return decode_; }
  const LookupCounts& prefill() const { return prefill_; }
  const Layer& layer(int32_t index) const { return layers_[index].sums; }
  const TransferredBytes& transferred() const { return transferred_; }
  // Of guesses that still load and that nothing waits for.
  int64_t guess_bytes_under_way() const { return guess_bytes_under_way_; }
  uint64_t loads() const { return loads_; }
  uint64_t load_failures() const { return load_failures_; }
  uint64_t bytes_loaded() const { return bytes_loaded_; }
  double stall_seconds() const { return stall_seconds_; }
  double link_busy_seconds() const { return link_busy_seconds_; }

 private:
  enum class Guess : uint8_t {
    kNone,  // nothing is open: not loaded by a guess, or counted already
    kOpen,  // loaded or loading by a guess, and not used yet
    kLate,  // used before it arrived
    kGivenUp,
  };
  struct LayerBooks {
    int64_t blob_bytes = 0;
    std::vector<Guess> guesses;  // by expert
    Layer sums = {};
    prometheus::Counter* lookups = nullptr;
    prometheus::Counter* hits = nullptr;
    prometheus::Gauge* slots = nullptr;
    int32_t slots_now = 0;
  };
  static void Move(const LayerBooks& layer, prometheus::Gauge& from,
                   prometheus::Gauge& to);

  Metrics& metrics_;
  Metrics::TransferBytes bytes_;
  std::vector<LayerBooks> layers_;
  LookupCounts step_;  // since EndLookups
  LookupCounts decode_;
  LookupCounts prefill_;
  TransferredBytes transferred_;
  int64_t guess_bytes_under_way_ = 0;
  uint64_t loads_ = 0;
  uint64_t load_failures_ = 0;
  uint64_t bytes_loaded_ = 0;
  double stall_seconds_ = 0;
  double link_busy_seconds_ = 0;
};

}  // namespace bullpen
