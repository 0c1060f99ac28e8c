#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "absl/status/status.h"
#include "base/metrics.h"
#include "base/thread_owner.h"
#include "engine/experts/accounts.h"
#include "engine/experts/cache_config.h"
#include "engine/experts/cache_snapshot.h"
#include "engine/experts/expert.h"
#include "engine/experts/oracle_window.h"
#include "engine/experts/slot_pool.h"
#include "engine/experts/transfer.h"

namespace bullpen {

// An expert whose weights are in its slot, or that could not be loaded.
struct ReadyExpert {
  int32_t expert = 0;
  const std::byte* blob = nullptr;  // null iff !status.ok()
  absl::Status status = {};         // DataLoss
};

// Keeps experts in the slots of one place, which its transfers fill from
// another: its arena may be any memory that they can write; the cache itself
// never touches it. Owns the index; only the engine thread moves a slot, so
// there is no mutex. It does not decide what to prefetch, and does not know
// what an expert computes. The only user of its TransferQueue.
class ExpertCache {
 public:
  // slots[l] * blob_bytes(l) for each layer.
  static int64_t ArenaBytes(const ExpertCatalog& catalog,
                            std::span<const int32_t> slots);
  // `arena`: 4096-aligned, of ArenaBytes. All of them outlive the cache.
  ExpertCache(const ExpertCatalog& catalog, const CacheConfig& config,
              std::span<std::byte> arena, TransferQueue& transfers,
              Metrics& metrics);
  ExpertCache(const ExpertCache&) = delete;
  ExpertCache& operator=(const ExpertCache&) = delete;
  ~ExpertCache();  // Waits for reads under way, drops what is still to be
                   // read; CHECKs that no lease is out.

  // The experts that one layer needs in one step, handed out in groups. Leases
  // the group it last gave; a leased slot is never a victim. Move-only.
  class Acquisition {
   public:
    Acquisition(Acquisition&& other) noexcept;
    Acquisition& operator=(Acquisition&&) = delete;
    ~Acquisition();
    // The next group: first those resident at Acquire, then, each time at
    // least one has arrived, those that have (this blocks). Empty: all were
    // given, or `stop` is requested. Ends the leases of the group before. An
    // expert that failed to load comes with its status; the others are not
    // affected.
    std::span<const ReadyExpert> Next(const std::stop_token& stop = {});
    // Whether some have yet to be loaded, and whether Next() waits for that.
    bool loads() const;
    bool waits() const;

   private:
    friend class ExpertCache;
    explicit Acquisition(ExpertCache* cache) : cache_(cache) {}
    ExpertCache* cache_;
  };

  // Asks for distinct `experts` of `layer`, each used by `counts[i]` tokens of
  // a step of `tokens` tokens. Loads of missing ones start now, as far as
  // slots that this step does not need allow; the rest starts as groups are
  // done. One Acquisition at a time.
  Acquisition Acquire(int32_t layer, std::span<const int32_t> experts,
                      std::span<const int32_t> counts, int32_t tokens,
                      Phase phase);

  // Starts loads that are worth having when the link is idle, of those that are
  // in no slot, as far as the queue has room. Never evicts a leased slot or one
  // that a step has asked for. What it loads keeps its slot until its layer has
  // run. Returns how many loads have begun.
  int32_t Prefetch(std::span<const ExpertKey> experts);
  // True if it is in a slot, or loads: then no guess takes that slot before its
  // layer has run.
  bool Expect(ExpertKey key);
  // Of PolicyKind::kStatic, before the first Acquire (any thread): who has more
  // stays longer.
  void SetScores(int32_t layer, std::span<const float> scores);
  const CacheAccounts& accounts() const { return accounts_; }
  // Time in which demands were under way.
  double demand_seconds() const { return transfers_.demand_seconds(); }
  const ExpertCatalog& catalog() const { return catalog_; }

  CacheSnapshot Snapshot() const;
  int64_t arena_bytes() const { return arena_bytes_; }

 private:
  std::span<const ReadyExpert> NextGroup(const std::stop_token& stop);
  void EndStep();
  void ReleaseGroup();
  void StartLoads();
  bool StartLoad(ExpertKey key, Cause cause);
  void CancelUnused(int32_t layer);
  void WaitForLoads(const std::stop_token& stop);
  void TakeResults();
  void SettleResults();
  void Settle(const TransferResult& result);
  uint64_t Ticket(ExpertKey key) const;
  ExpertKey KeyOf(uint64_t ticket) const;
  const std::byte* Blob(int32_t layer, int32_t slot) const;

  const ExpertCatalog& catalog_;
  TransferQueue& transfers_;
  CacheAccounts accounts_;
  ThreadOwner owner_;
  int64_t arena_bytes_ = 0;
  SlotPool slots_;
  std::vector<std::byte*> places_;  // of the arena, by LayerSlots' number
  // By layer: of its first expert. The others' follow; an expert has one slot,
  // so that a ticket has one load.
  std::vector<uint64_t> first_tickets_;
  // By ticket, whether it was right once; empty: each load is verified.
  std::vector<bool> verified_;
  std::optional<OracleWindow> oracle_;
  std::vector<TransferResult> results_;  // scratch

  // The step that is open: `layer_` is -1 when none is. Each expert that it
  // asked for is in one of: waiting_ (no slot yet), arriving_ (a leased slot
  // that loads), ready_ (not yet given), group_ (given last), or done.
  int32_t layer_ = -1;
  Phase phase_ = Phase::kDecode;
  std::vector<int32_t> waiting_;  // in the order to load, last first
  int32_t arriving_ = 0;
  std::vector<ReadyExpert> ready_;
  std::vector<ReadyExpert> group_;
};

}  // namespace bullpen
