#include "engine/experts/token_experts.h"

#include <algorithm>

#include "base/check.h"

namespace bullpen {

TokenExperts::TokenExperts(int32_t experts, int32_t top_k, int32_t vocab,
                           int64_t bytes)
    : experts_(experts), top_k_(static_cast<size_t>(top_k)) {
  CHECK(experts <= 65536) << experts;
  const int64_t place_bytes =
      static_cast<int64_t>(sizeof(Place) + kKept * top_k_ * sizeof(uint16_t));
  const int64_t places = std::min<int64_t>(vocab, bytes / place_bytes);
  if (places <= 0) return;
  places_.resize(static_cast<size_t>(places));
  chosen_.resize(places_.size() * kKept * top_k_);
}

void TokenExperts::Learn(int32_t id, std::span<const int32_t> chosen) {
  CHECK(chosen.size() == top_k_) << chosen.size();
  if (places_.empty()) return;
  const size_t index = IndexOf(id);
  Place& place = places_[index];
  if (place.id != id) {
    if (place.kept > 0) {
      --place.kept;
      return;
    }
    place = {.id = id};
  }
  const size_t at = index * kKept + static_cast<size_t>(place.next);
  std::ranges::transform(
      chosen, chosen_.begin() + static_cast<int64_t>(at * top_k_),
      [](int32_t expert) { return static_cast<uint16_t>(expert); });
  place.next = (place.next + 1) % kKept;
  place.kept = std::min(place.kept + 1, kKept);
}

bool TokenExperts::Estimate(int32_t id, std::span<const float> prior,
                            std::span<float> out) const {
  if (places_.empty()) return false;
  const size_t index = IndexOf(id);
  const Place& place = places_[index];
  if (place.id != id || place.kept == 0) return false;
  const float share = 1 / static_cast<float>(place.kept + 1);
  for (int32_t e = 0; e < experts_; ++e) out[e] = share * prior[e];
  for (int32_t back = 1; back <= place.kept; ++back) {
    const size_t at = index * kKept +
                      static_cast<size_t>((place.next - back + kKept) % kKept);
    for (size_t rank = 0; rank < top_k_; ++rank) {
      out[chosen_[at * top_k_ + rank]] += share;
    }
  }
  return true;
}

int64_t TokenExperts::bytes() const {
  return static_cast<int64_t>(places_.size() * sizeof(Place) +
                              chosen_.size() * sizeof(uint16_t));
}

}  // namespace bullpen
