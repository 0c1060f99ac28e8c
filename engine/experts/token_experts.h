#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bullpen {

// For one layer: what the last tokens of an id chose there. In the first layers
// that depends mostly on the id. Direct-mapped, bounded by the bytes it is
// given, in this process's memory only: it tells which ids were seen. Pure; one
// thread.
class TokenExperts {
 public:
  // Ids are below `vocab`. With fewer bytes than one id takes it holds nothing.
  TokenExperts(int32_t experts, int32_t top_k, int32_t vocab, int64_t bytes);

  // A token of this id chose `chosen`, of top_k experts. Ids that share a place
  // take it from each other use by use, so that a rare one displaces none that
  // is frequent.
  void Learn(int32_t id, std::span<const int32_t> chosen);
  // out[e] = the share of the id's tokens that are kept which used expert e,
  // smoothed by one token of `prior`. False, and out as it was: none is kept.
  bool Estimate(int32_t id, std::span<const float> prior,
                std::span<float> out) const;

  int64_t bytes() const;

 private:
  static constexpr int32_t kKept = 4;  // tokens of an id
  struct Place {
    int32_t id = -1;
    int32_t kept = 0;
    int32_t next = 0;  // of the ring of kept tokens
  };
  size_t IndexOf(int32_t id) const {
    return static_cast<size_t>(id) % places_.size();
  }

  int32_t experts_;
  size_t top_k_;
  std::vector<Place> places_;
  std::vector<uint16_t> chosen_;  // [places, kKept, top_k]
};

}  // namespace bullpen
