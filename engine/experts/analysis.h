#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "engine/experts/oracle_cache.h"
#include "engine/experts/trace.h"

namespace bullpen {

// How well routing suits a cache: "Not All Models Suit Expert Offloading"
// (arXiv 2505.16056) for SRP and SCH, and plainer figures beside them.

inline constexpr std::array<int32_t, 4> kSegments = {4, 16, 64, 256};
inline constexpr std::array<int32_t, 5> kLags = {1, 2, 4, 8, 16};
inline constexpr std::array<int32_t, 4> kHops = {1, 2, 4, 8};

// One text of one layer, or several: what each token chose.
struct TokenChoices {
  int32_t experts = 0;
  std::vector<std::vector<std::span<const int32_t>>> texts;
};

// The best F1 that a router can reach which decides once for a segment of m
// tokens which experts serve all of it.
struct SegmentRouting {
  double srp = 0;
  double ratio = 0;  // experts of that router over those of a token
};
// Counts activations in all windows of `segment` tokens; layers may be added
// up for a figure of the whole model.
class SegmentCounts {
 public:
  explicit SegmentCounts(int32_t segment)
      : segment_(segment), windows_with_(static_cast<size_t>(segment) + 1) {}
  void Add(const TokenChoices& choices);
  // One text; the experts of a token are distinct.
  void Add(int32_t experts, std::span<const std::span<const int32_t>> text);
  // Nothing where no text is as long as a segment.
  std::optional<SegmentRouting> Best() const;

 private:
  int32_t segment_;
  // By how often an expert is used in a window: how many such pairs.
  std::vector<int64_t> windows_with_;
  int64_t windows_ = 0;
};

// SCH: hits of a cache of `slots` experts that evicts, among those that this
// token does not use, the one that the next `segment` tokens use least (ties:
// the least recently used). Cold at each text.
HitCounts SegmentCache(const TokenChoices& choices, int32_t segment,
                       int32_t slots);

// The figures of one layer, or the mean of all.
struct RoutingFigures {
  int64_t tokens = 0;
  int32_t used_experts = 0;      // in all texts together
  double effective_experts = 0;  // e^entropy of the use
  double top_quarter_share = 0;  // of uses, by the most used quarter
  std::array<std::optional<SegmentRouting>, kSegments.size()> segments;
  // SCH by segment, then by slots as `slots` of the analysis lists them.
  std::array<std::vector<double>, kSegments.size()> segment_cache;
  std::array<double, kLags.size()> overlap = {};  // share of a token's experts
  // Distinct experts after 1, 2, 4, ... tokens of a text, mean over texts.
  std::vector<double> working_set;
  // Given one expert of a token, how likely is the likeliest one `hop` layers
  // on; and how likely is the most popular one there without being told.
  std::array<double, kHops.size()> affinity = {};
  std::array<double, kHops.size()> affinity_base = {};
};

struct RoutingAnalysis {
  std::vector<int32_t> slots;
  std::vector<RoutingFigures> layers;
  RoutingFigures whole;
};

// `slots`: cache sizes per layer for SCH, ascending. Only the rows of `phase`,
// if given. `progress` is called with layers done and their number.
RoutingAnalysis AnalyzeRouting(
    const RoutingTrace& trace, std::span<const int32_t> slots,
    std::optional<Phase> phase,
    const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace bullpen
