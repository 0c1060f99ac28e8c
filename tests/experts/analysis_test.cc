#include "engine/experts/analysis.h"

#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/experts/trace_file.h"

namespace bullpen {
namespace {

using Tokens = std::vector<std::vector<int32_t>>;

TokenChoices OneText(const Tokens& tokens, int32_t experts) {
  TokenChoices choices{.experts = experts, .texts = {{}}};
  for (const auto& token : tokens) choices.texts[0].push_back(token);
  return choices;
}

TEST(SegmentCounts, ATextThatKeepsToItsExpertsIsServedWhole) {
  const Tokens tokens(8, {2, 5});
  SegmentCounts counts(4);
  counts.Add(OneText(tokens, 8));
  ASSERT_TRUE(counts.Best().has_value());
  EXPECT_DOUBLE_EQ(counts.Best()->srp, 1);
  EXPECT_DOUBLE_EQ(counts.Best()->ratio, 1);
}

// Windows of 2: {0 1} {1 0} {0 1}: each expert once in each. Serving both:
// F1 = 2 * 6 / (2 * 6 + 6) = 2/3 with twice the experts of a token.
TEST(SegmentCounts, AlternatingTextsNeedTwiceTheExperts) {
  const Tokens tokens = {{0}, {1}, {0}, {1}};
  SegmentCounts counts(2);
  counts.Add(OneText(tokens, 4));
  EXPECT_DOUBLE_EQ(counts.Best()->srp, 2.0 / 3);
  EXPECT_DOUBLE_EQ(counts.Best()->ratio, 2);
}

TEST(SegmentCounts, SaysNothingOfTextsThatAreTooShort) {
  SegmentCounts counts(16);
  counts.Add(OneText(Tokens(15, {0}), 2));
  EXPECT_FALSE(counts.Best().has_value());
}

TEST(SegmentCache, KeepsWhatTheNextTokensUse) {
  // Two slots: at token 2, expert 0 comes back soon and 1 does not.
  const Tokens tokens = {{0}, {1}, {2}, {0}, {1}};
  EXPECT_EQ(SegmentCache(OneText(tokens, 3), 1, 2).hits, 1);
  EXPECT_EQ(SegmentCache(OneText(tokens, 3), 4, 2).hits, 1);
  EXPECT_EQ(SegmentCache(OneText(tokens, 3), 4, 3).hits, 2);
  EXPECT_EQ(SegmentCache(OneText(tokens, 3), 4, 3).lookups, 5);
}

TEST(AnalyzeRouting, GivesWhatOthersMeasuredOnTheSameTrace) {
  const auto trace =
      ReadTrace("tests/golden/traces/qwen3-30b-a3b.12-layers.csv");
  ASSERT_TRUE(trace.ok()) << trace.status();
  const int32_t slots[] = {6, 12, 24};
  const RoutingAnalysis analysis =
      AnalyzeRouting(*trace, slots, Phase::kDecode);
  ASSERT_EQ(analysis.layers.size(), 12u);
  // Uniform routing would give a lag overlap of 6 / 128.
  EXPECT_NEAR(analysis.whole.overlap[0], 0.37, 0.05);
  EXPECT_NEAR(analysis.whole.segments[1]->srp, 0.46, 0.05);
  EXPECT_GT(analysis.whole.affinity[0], 2 * 6.0 / 128);
  for (const RoutingFigures& layer : analysis.layers) {
    EXPECT_EQ(layer.tokens, 50);
    EXPECT_GT(layer.affinity[0] + 1e-9, layer.affinity_base[0] * 0.5);
    for (size_t m = 0; m < kSegments.size(); ++m) {
      EXPECT_LE(layer.segment_cache[m][0], layer.segment_cache[m][1]);
      EXPECT_LE(layer.segment_cache[m][1], layer.segment_cache[m][2]);
    }
    EXPECT_LE(layer.working_set.front(), 6);
  }
}

// The first layers of some models are dense, and so in no trace.
TEST(AnalyzeRouting, LayersThatDoNotRouteAreInNoMean) {
  RoutingTrace whole(8, {0, 0, 0});
  RoutingTrace dense_first(8, {0, 0, 0, 0});
  std::mt19937 random(7);
  for (int32_t step = 0; step < 40; ++step) {
    for (int32_t layer = 0; layer < 3; ++layer) {
      const int32_t first = static_cast<int32_t>(random() % 8);
      const int32_t experts[] = {first, (first + 1 + layer) % 8};
      const float weights[] = {0.5f, 0.5f};
      ASSERT_TRUE(
          whole.Add({.step = step, .layer = layer}, experts, weights).ok());
      ASSERT_TRUE(
          dense_first.Add({.step = step, .layer = layer + 1}, experts, weights)
              .ok());
    }
  }
  const int32_t slots[] = {2, 4};
  const auto figures = [&](const RoutingTrace& trace) {
    return AnalyzeRouting(trace, slots, std::nullopt).whole;
  };
  const RoutingFigures one = figures(whole);
  const RoutingFigures other = figures(dense_first);
  EXPECT_EQ(one.used_experts, other.used_experts);
  EXPECT_EQ(one.effective_experts, other.effective_experts);
  EXPECT_EQ(one.top_quarter_share, other.top_quarter_share);
  EXPECT_EQ(one.segment_cache, other.segment_cache);
  EXPECT_EQ(one.overlap, other.overlap);
  EXPECT_EQ(one.working_set, other.working_set);
  EXPECT_EQ(one.affinity, other.affinity);
  EXPECT_EQ(one.affinity_base, other.affinity_base);
  EXPECT_GT(one.affinity[1], 0);
  EXPECT_EQ(one.affinity[2], 0) << "no layer is four ahead";
}

TEST(AnalyzeRouting, UniformRoutingHasNoStructure) {
  constexpr int32_t kExperts = 16;
  RoutingTrace trace(kExperts, {0, 0});
  std::mt19937 random(5);
  for (int32_t step = 0; step < 2000; ++step) {
    for (int32_t layer = 0; layer < 2; ++layer) {
      const int32_t expert[] = {static_cast<int32_t>(random() % kExperts)};
      const float weight[] = {1};
      ASSERT_TRUE(
          trace.Add({.step = step, .layer = layer}, expert, weight).ok());
    }
  }
  const int32_t slots[] = {1};
  const RoutingFigures whole = AnalyzeRouting(trace, slots, std::nullopt).whole;
  EXPECT_NEAR(whole.overlap[0], 1.0 / kExperts, 0.02);
  EXPECT_NEAR(whole.effective_experts, kExperts, 0.3);
  EXPECT_NEAR(whole.top_quarter_share, 0.25, 0.05);
  EXPECT_LT(whole.affinity[0], 0.15);
  EXPECT_EQ(whole.used_experts, kExperts);
}

}  // namespace
}  // namespace bullpen
