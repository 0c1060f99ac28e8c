#include "kernels/exp.h"

#include <limits>

#include "tests/kernels/kernel_testing.h"

namespace bullpen::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(ExpTest, DefinedAtTheEnds) {
  EXPECT_EQ(Exp(0.0f), 1.0f);
  EXPECT_EQ(Exp(-0.0f), 1.0f);
  EXPECT_EQ(Exp(kInfinity), kInfinity);
  EXPECT_EQ(Exp(-kInfinity), 0.0f);
  EXPECT_FALSE(std::signbit(Exp(-kInfinity)));
  EXPECT_TRUE(std::isnan(Exp(std::nanf(""))));
  EXPECT_TRUE(std::isnan(Exp(-std::nanf(""))));
  EXPECT_EQ(Exp(88.8f), kInfinity);
  EXPECT_LT(Exp(88.72f), kInfinity);
  EXPECT_EQ(Exp(std::numeric_limits<float>::max()), kInfinity);
  EXPECT_EQ(Exp(std::numeric_limits<float>::lowest()), 0.0f);
  EXPECT_EQ(Exp(-104.0f), 0.0f);
  EXPECT_EQ(Exp(-103.5f), std::numeric_limits<float>::denorm_min());
  EXPECT_EQ(std::fpclassify(Exp(-90.0f)), FP_SUBNORMAL);
}

// In units of the last place of the exact result.
double Error(float x) {
  const double exact = std::exp(static_cast<double>(x));
  const float rounded = static_cast<float>(exact);
  const double unit =
      static_cast<double>(std::nextafter(rounded, kInfinity)) - rounded;
  return std::fabs(static_cast<double>(Exp(x)) - exact) / unit;
}

TEST(ExpTest, WithinOneUnitInTheLastPlace) {
  double worst = 0.0;
  float worst_at = 0.0f;
  // Every 1009th float of both signs up to where the result is 0 or infinite.
  for (uint32_t bits = 0; bits < 0x42D00000; bits += 1009) {
    for (uint32_t sign : {0u, 0x80000000u}) {
      const float x = std::bit_cast<float>(bits | sign);
      if (x > 88.7f) continue;
      if (const double error = Error(x); error > worst) {
        worst = error;
        worst_at = x;
      }
    }
  }
  EXPECT_LE(worst, 1.0) << "at " << worst_at;
}

TEST(ExpTest, NeverFalls) {
  float previous = 0.0f;
  for (float x = -104.0f; x < 88.7f; x += 0.0009765625f) {
    const float e = Exp(x);
    ASSERT_GE(e, previous) << "at " << x;
    previous = e;
  }
}

using VectorExpTest = OpsTest;

// The softmax of (x, 0) for x <= 0 is Exp(x) / (Exp(x) + 1): it shows the
// vector form's bits down to the denormals.
TEST_P(VectorExpTest, EqualsScalarThroughTheSoftmax) {
  const int32_t tokens = 4096;
  Floats logits(tokens * 2);
  for (int32_t t = 0; t < tokens; ++t) {
    logits[2 * t] = -110.0f * static_cast<float>(t) / tokens;
    logits[2 * t + 1] = 0.0f;
  }
  Floats weights(tokens * 2);
  Exact<int32_t> chosen(tokens * 2);
  const RouteArgs args{.logits = logits.data(),
                       .tokens = tokens,
                       .experts = 2,
                       .k = 2,
                       .chosen = chosen.data(),
                       .weights = weights.data()};
  Stream stream = Threads(1);
  ASSERT_TRUE(ops().route(args, stream).ok());
  for (int32_t t = 0; t < tokens; ++t) {
    const float e = Exp(logits[2 * t]);
    ASSERT_EQ(weights[2 * t + (chosen[2 * t] == 0 ? 0 : 1)], e / (e + 1.0f))
        << "at " << logits[2 * t];
  }
}

INSTANTIATE_FOR_EACH_ISA(VectorExpTest);

}  // namespace
}  // namespace bullpen::kernels
