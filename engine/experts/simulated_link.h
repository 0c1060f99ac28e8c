#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "engine/experts/expert.h"
#include "engine/experts/transfer.h"

namespace bullpen {

// A link between two places, in virtual time: it moves one chunk at a time, at
// a fixed rate, demands before guesses, as TransferQueue does. Deterministic.
class SimulatedLink {
 public:
  // 0: transfers take no time.
  SimulatedLink(double bytes_per_second, int64_t chunk_bytes)
      : rate_(bytes_per_second), chunk_bytes_(chunk_bytes) {}

  struct Arrival {
    ExpertKey key;
    double time = 0;  // seconds
  };

  // Asked for at `now`, which never goes back. At most one transfer of a key.
  void Submit(ExpertKey key, int64_t bytes, Cause cause, double now);
  // A guess under way becomes a demand.
  void Promote(ExpertKey key, double now);
  // A guess that nobody wants any more. How many bytes are left of it, which
  // are dropped; 0: it goes on, as none is left or it is a demand.
  int64_t Cancel(ExpertKey key, double now);
  // Moves what the link has time for until `now`; appends what arrived.
  void RunUntil(double now, std::vector<Arrival>& out);
  // Runs on until something arrives; CHECKs that something is under way.
  void RunUntilArrival(std::vector<Arrival>& out);

  int64_t queued_guess_bytes() const { return guess_bytes_; }
  int64_t moved_bytes() const { return moved_bytes_; }
  // Time in which a demand was under way, up to the last one that has arrived.
  double demand_seconds() const { return demand_seconds_; }
  double busy_seconds() const { return busy_seconds_; }

 private:
  struct Transfer {
    ExpertKey key;
    int64_t bytes_left = 0;
    int64_t chunk_bytes = 0;
    double wanted_at = 0;  // since when it is a demand
  };
  void DemandRuns(double from, double until);
  // Moves one chunk that starts before `limit`. False: there is none.
  bool MoveChunk(double limit, std::vector<Arrival>& out);

  double rate_;
  int64_t chunk_bytes_;
  double free_at_ = 0;  // when the chunk that moves has arrived
  double busy_seconds_ = 0;
  int64_t guess_bytes_ = 0;
  int64_t moved_bytes_ = 0;
  double demand_seconds_ = 0;
  double demand_until_ = 0;  // they are counted until then
  std::deque<Transfer> demands_;
  std::deque<Transfer> guesses_;
  std::vector<Arrival> early_;  // arrived while Submit or Promote ran on
};

}  // namespace bullpen
