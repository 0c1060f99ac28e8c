#include "engine/experts/conditional_table.h"

#include <algorithm>

#include "base/check.h"

namespace bullpen {

ConditionalTable::ConditionalTable(int32_t from_experts, int32_t to_experts,
                                   int32_t row_uses)
    : width_(to_experts),
      row_uses_(row_uses),
      counts_(static_cast<size_t>(from_experts) * to_experts),
      totals_(static_cast<size_t>(from_experts)) {
  CHECK(row_uses >= 2 && row_uses <= 65535) << row_uses;
}

void ConditionalTable::Halve(int32_t row) {
  uint16_t* const counts = counts_.data() + int64_t{row} * width_;
  for (int32_t j = 0; j < width_; ++j) counts[j] /= 2;
  totals_[row] /= 2;
}

void ConditionalTable::Learn(std::span<const int32_t> from,
                             std::span<const int32_t> to) {
  for (const int32_t i : from) {
    if (totals_[i] >= row_uses_) Halve(i);
    ++totals_[i];
    uint16_t* const counts = counts_.data() + int64_t{i} * width_;
    for (const int32_t j : to) ++counts[j];
  }
}

void ConditionalTable::Estimate(std::span<const int32_t> from,
                                std::span<const float> prior,
                                std::span<float> out) const {
  float* const p = out.data();
  std::fill_n(p, width_, 0.0f);
  const float share = 1.0f / static_cast<float>(from.size());
  float prior_share = 0;
  for (const int32_t i : from) {
    const float scale = share / static_cast<float>(totals_[i] + 1);
    prior_share += scale;
    const uint16_t* const counts = counts_.data() + int64_t{i} * width_;
    for (int32_t j = 0; j < width_; ++j) {
      p[j] += scale * static_cast<float>(counts[j]);
    }
  }
  for (int32_t j = 0; j < width_; ++j) p[j] += prior_share * prior[j];
}

bool ConditionalTable::Restore(std::span<const uint16_t> counts,
                               std::span<const uint16_t> row_totals) {
  if (counts.size() != counts_.size() || row_totals.size() != totals_.size()) {
    return false;
  }
  for (size_t i = 0; i < counts.size(); ++i) {
    const uint16_t total = row_totals[i / static_cast<size_t>(width_)];
    if (counts[i] > total || total > row_uses_) return false;
  }
  std::ranges::copy(counts, counts_.begin());
  std::ranges::copy(row_totals, totals_.begin());
  return true;
}

}  // namespace bullpen
