#include "engine/experts/simulated_link.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace bullpen {

void SimulatedLink::Submit(ExpertKey key, int64_t bytes, Cause cause,
                           double now) {
  while (MoveChunk(now, early_)) {
  }
  free_at_ = std::max(free_at_, now);
  const bool guess = cause == Cause::kPrefetch;
  const int64_t chunk =
      guess ? std::min(GuessChunkBytes(bytes), chunk_bytes_) : chunk_bytes_;
  (guess ? guesses_ : demands_).push_back({key, bytes, chunk, now});
  if (guess) guess_bytes_ += bytes;
}

void SimulatedLink::Promote(ExpertKey key, double now) {
  while (MoveChunk(now, early_)) {
  }
  const auto found = std::ranges::find(guesses_, key, &Transfer::key);
  if (found == guesses_.end()) {
    // Its last chunk moves.
    const auto last = std::ranges::find(early_, key, &Arrival::key);
    if (last != early_.end()) DemandRuns(now, last->time);
    return;
  }
  found->wanted_at = now;
  guess_bytes_ -= found->bytes_left;
  demands_.push_back(*found);
  guesses_.erase(found);
}

int64_t SimulatedLink::Cancel(ExpertKey key, double now) {
  while (MoveChunk(now, early_)) {
  }
  const auto found = std::ranges::find(guesses_, key, &Transfer::key);
  if (found == guesses_.end()) return 0;
  const int64_t left = found->bytes_left;
  guess_bytes_ -= left;
  guesses_.erase(found);
  return left;
}

void SimulatedLink::RunUntil(double now, std::vector<Arrival>& out) {
  while (MoveChunk(now, early_)) {
  }
  // The chunk that ends after `now` has not arrived yet.
  const auto later = std::ranges::stable_partition(
      early_, [now](const Arrival& arrival) { return arrival.time <= now; });
  out.insert(out.end(), early_.begin(), later.begin());
  early_.erase(early_.begin(), later.begin());
}

void SimulatedLink::RunUntilArrival(std::vector<Arrival>& out) {
  while (early_.empty()) {
    const bool moved =
        MoveChunk(std::numeric_limits<double>::infinity(), early_);
    CHECK(moved) << "nothing is under way";
  }
  out.insert(out.end(), early_.begin(), early_.end());
  early_.clear();
}

void SimulatedLink::DemandRuns(double from, double until) {
  demand_seconds_ += std::max(0.0, until - std::max(from, demand_until_));
  demand_until_ = std::max(demand_until_, until);
}

bool SimulatedLink::MoveChunk(double limit, std::vector<Arrival>& out) {
  const bool instant = rate_ <= 0;
  if (!instant && free_at_ >= limit) return false;
  const bool guess = demands_.empty();
  std::deque<Transfer>& queue = guess ? guesses_ : demands_;
  if (queue.empty()) return false;
  Transfer& transfer = queue.front();
  const int64_t bytes = std::min(transfer.bytes_left, transfer.chunk_bytes);
  transfer.bytes_left -= bytes;
  moved_bytes_ += bytes;
  if (guess) {
    guess_bytes_ -= bytes;
  }
  if (!instant) {
    const double seconds = static_cast<double>(bytes) / rate_;
    free_at_ += seconds;
    busy_seconds_ += seconds;
    if (!guess) DemandRuns(transfer.wanted_at, free_at_);
  }
  if (transfer.bytes_left == 0) {
    out.push_back({transfer.key, free_at_});
    queue.pop_front();
  }
  return true;
}

}  // namespace bullpen
