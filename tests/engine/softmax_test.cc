#include "engine/softmax.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "engine/top_selector.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bullpen {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> RandomValues(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

TEST(Softmax, TermIsCloseToExp) {
  for (int i = 0; i < 85999; ++i) {
    const float x = -static_cast<float>(i) * 1e-3f;
    const double exact = std::exp(static_cast<double>(x));
    EXPECT_NEAR(SoftmaxTerm(x, 0, 1), exact, 3e-7 * exact) << x;
  }
  EXPECT_EQ(SoftmaxTerm(0, 0, 0.01f), 1.0f);
  EXPECT_EQ(SoftmaxTerm(-100, 0, 1), 0.0f);
  EXPECT_EQ(SoftmaxTerm(-kInfinity, 0, 1), 0.0f);
  EXPECT_EQ(SoftmaxTerm(kNan, 0, 1), 0.0f);
}

TEST(Softmax, ArgMaxTakesTheFirstOfEqualsAndSkipsNan) {
  for (size_t count : {1u, 15u, 16u, 64u, 65u, 1000u}) {
    std::vector<float> values(count, kNan);
    EXPECT_EQ(ArgMax(values), 0);
    values[count - 1] = -5;
    EXPECT_EQ(ArgMax(values), static_cast<int32_t>(count) - 1);
    values[count / 2] = -5;
    EXPECT_EQ(ArgMax(values), static_cast<int32_t>(count / 2));
    values[0] = -kInfinity;
    EXPECT_EQ(ArgMax(values), count == 1 ? 0 : static_cast<int32_t>(count / 2));
  }
}

TEST(Softmax, FindNeverGivesAnIndexWithoutMass) {
  std::vector<float> values(3000, -kInfinity);
  values[1500] = 0;
  values[2900] = 0;
  SoftmaxTerms terms;
  terms.Compute(values, 0, 1);
  EXPECT_EQ(terms.total(), 2.0);
  EXPECT_EQ(terms.Find(0), 1500);
  EXPECT_EQ(terms.Find(0.999), 1500);
  EXPECT_EQ(terms.Find(1.0), 2900);
  EXPECT_EQ(terms.Find(2.0), 2900);
  values[2900] = -kInfinity;
  terms.Compute(values, 0, 1);
  EXPECT_EQ(terms.Find(1.0), 1500);  // at the end of the last block
}

TEST(Softmax, TotalIsTheSumOfTheTerms) {
  const std::vector<float> values = RandomValues(5001, 3);
  const float max = MaxOf(values);
  SoftmaxTerms terms;
  terms.Compute(values, max, 1);
  EXPECT_EQ(terms.total(), SoftmaxTotal(values, max));
  double exact = 0;
  for (float x : values) exact += std::exp(static_cast<double>(x) - max);
  EXPECT_NEAR(terms.total(), exact, 1e-6 * exact);
}

TEST(Softmax, TheNucleusIsThatOfAFullSort) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    std::vector<float> values = RandomValues(3000, seed);
    if (seed % 2 == 0) {
      for (float& value : values) value = std::round(value);  // many ties
    }
    const float max = MaxOf(values);
    SoftmaxTerms all, nucleus;
    all.Compute(values, max, 1);
    nucleus.Compute(values, max, 1);
    const double mass = all.total() * 0.05 * static_cast<double>(seed);
    nucleus.KeepNucleus(mass);

    const std::span<const float> terms = all.terms();
    std::vector<size_t> order(terms.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(
        order, [&](size_t a, size_t b) { return terms[a] > terms[b]; });
    double sum = 0;
    for (size_t i : order) {
      // Sums in another order may differ in their last bits.
      if (std::abs(sum - mass) > 1e-9 * mass) {
        ASSERT_EQ(nucleus.terms()[i], sum < mass ? terms[i] : 0.0f)
            << "seed " << seed << ", term " << i;
      }
      sum += terms[i];
    }
  }
}

TEST(Softmax, ANucleusKeepsAtLeastOneAndTheFirstOfEquals) {
  SoftmaxTerms terms;
  const std::vector<float> values = {-1, 0, 0, 0};
  terms.Compute(values, 0, 1);
  terms.KeepNucleus(1e-9);
  EXPECT_THAT(terms.terms(), testing::ElementsAre(0, 1, 0, 0));
  terms.Compute(values, 0, 1);
  terms.KeepNucleus(1.5);
  EXPECT_THAT(terms.terms(), testing::ElementsAre(0, 1, 1, 0));
  EXPECT_EQ(terms.total(), 2.0);
}

// 1 is the least of its bucket, and the others' bucket is the one below.
TEST(Softmax, ANucleusCountsTheLeastOfABucketOnce) {
  SoftmaxTerms terms;
  terms.Compute(std::vector<float>{0, -0.01f, -0.02f}, 0, 1);
  terms.KeepNucleus(1.8);
  EXPECT_GT(terms.terms()[1], 0);
  EXPECT_EQ(terms.terms()[2], 0);
}

TEST(TopSelector, AgreesWithAFullSort) {
  TopSelector selector;
  for (size_t size : {1u, 63u, 300u, 5000u}) {
    std::vector<float> values = RandomValues(size, size);
    for (float& value : values) value = std::round(value * 4);  // many ties
    values[size / 2] = kNan;
    std::vector<int32_t> sorted;
    for (size_t i = 0; i < size; ++i) {
      if (!std::isnan(values[i])) sorted.push_back(static_cast<int32_t>(i));
    }
    std::ranges::stable_sort(
        sorted, [&](int32_t a, int32_t b) { return values[a] > values[b]; });
    for (int32_t count : {0, 1, 2, 20, 64, 1000, 6000}) {
      const std::vector<int32_t> expected(
          sorted.begin(),
          sorted.begin() + std::min<size_t>(count, sorted.size()));
      EXPECT_THAT(selector.Select(values, count),
                  testing::ElementsAreArray(expected))
          << size << " values, " << count << " chosen";
    }
  }
}

}  // namespace
}  // namespace bullpen
