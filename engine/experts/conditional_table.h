#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bullpen {

// How often a token that used expert i of one layer used expert j of a later
// one. A row that has seen `row_uses` tokens is halved, so that memory is
// bounded and old habits fade. Pure; one thread.
class ConditionalTable {
 public:
  ConditionalTable(int32_t from_experts, int32_t to_experts, int32_t row_uses);
  static int64_t Bytes(int32_t from_experts, int32_t to_experts) {
    return int64_t{from_experts} * to_experts * int64_t{sizeof(uint16_t)};
  }

  // A token used experts `from` and then `to`.
  void Learn(std::span<const int32_t> from, std::span<const int32_t> to);
  // out[j] = the mean over `from` of P(j | i), each smoothed by one token of
  // `prior` (by expert of the later layer). `from` is not empty.
  void Estimate(std::span<const int32_t> from, std::span<const float> prior,
                std::span<float> out) const;

  // What a profile keeps: counts row by row, and how many tokens each saw.
  std::span<const uint16_t> counts() const { return counts_; }
  std::span<const uint16_t> row_totals() const { return totals_; }
  // False, and nothing changes, where a count is above its row's total or that
  // above the limit of this table.
  bool Restore(std::span<const uint16_t> counts,
               std::span<const uint16_t> row_totals);

 private:
  void Halve(int32_t row);

  int32_t width_;
  int32_t row_uses_;
  std::vector<uint16_t> counts_;  // [from_experts, to_experts]
  std::vector<uint16_t> totals_;  // [from_experts]
};

}  // namespace bullpen
