#include "kernels/types.h"

#include <limits>

#include "kernels/prefetch.h"
#include "tests/kernels/kernel_testing.h"

namespace bullpen::kernels {
namespace {

TEST(TypesTest, EveryHalfSurvivesTheRoundTrip) {
  for (DType type : {DType::kF16, DType::kBF16}) {
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
      const uint16_t half = static_cast<uint16_t>(bits);
      const float value = ToFloat(half, type);
      if (std::isnan(value)) {
        ASSERT_TRUE(std::isnan(ToFloat(FromFloat(value, type), type)));
      } else {
        ASSERT_EQ(FromFloat(value, type), half) << DTypeName(type);
      }
    }
  }
}

TEST(TypesTest, F16RoundsToNearestEven) {
  // Halfway between each pair of neighbours, and just beside it.
  for (uint32_t bits = 0; bits < 0x7BFF; ++bits) {
    const float low = ToFloat(static_cast<uint16_t>(bits), DType::kF16);
    const float high = ToFloat(static_cast<uint16_t>(bits + 1), DType::kF16);
    const float middle = (low + high) / 2;
    const uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    ASSERT_EQ(FromFloat(middle, DType::kF16), even) << middle;
    ASSERT_EQ(FromFloat(std::nextafter(middle, low), DType::kF16), bits);
    ASSERT_EQ(FromFloat(std::nextafter(middle, high), DType::kF16), bits + 1);
    ASSERT_EQ(FromFloat(-middle, DType::kF16), even | 0x8000);
  }
}

TEST(TypesTest, HalvesAtTheEnds) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(FromFloat(65504.0f, DType::kF16), 0x7BFF);
  EXPECT_EQ(FromFloat(65519.99f, DType::kF16), 0x7BFF);
  EXPECT_EQ(FromFloat(65520.0f, DType::kF16), 0x7C00);
  EXPECT_EQ(FromFloat(-kInfinity, DType::kF16), 0xFC00);
  EXPECT_EQ(FromFloat(1e-10f, DType::kF16), 0);
  EXPECT_EQ(FromFloat(-0.0f, DType::kF16), 0x8000);
  EXPECT_EQ(ToFloat(1, DType::kF16), 0x1p-24f);
  EXPECT_EQ(FromFloat(std::numeric_limits<float>::max(), DType::kBF16), 0x7F80);
  EXPECT_EQ(FromFloat(kInfinity, DType::kBF16), 0x7F80);
  EXPECT_EQ(FromFloat(1.00390625f, DType::kBF16), 0x3F80);
  // A NaN whose payload lies in the cut bits alone stays a NaN.
  const float nan = std::bit_cast<float>(0x7F800001u);
  EXPECT_TRUE(std::isnan(ToFloat(FromFloat(nan, DType::kBF16), DType::kBF16)));
  EXPECT_TRUE(std::isnan(ToFloat(FromFloat(nan, DType::kF16), DType::kF16)));
}

// One whole band, and one of which the last panel has two rows.
TEST(TypesTest, BandsOfFloatsInterleaveThirtyTwoRowsAndPadWithZero) {
  const int32_t rows = 32 + 2, cols = 35, stride = 37;
  Floats source(rows * stride);
  for (int64_t i = 0; i < source.size(); ++i) {
    source[i] = static_cast<float>(i + 1);
  }
  Floats panels(PanelBytes(DType::kF32, rows, cols) / 4, -1.0f);
  PackPanels(DType::kF32, source.data(), rows, cols, stride, panels.data());
  ASSERT_EQ(panels.size(), (32 + 16) * cols);
  for (int r = 0; r < 32 + 16; ++r) {
    for (int c = 0; c < cols; ++c) {
      EXPECT_EQ(
          r < 32 ? panels[c * 32 + r] : panels[32 * cols + c * 16 + r - 32],
          r < rows ? source[r * stride + c] : 0.0f)
          << r << ", " << c;
    }
  }
}

TEST(TypesTest, BandsOfHalvesInterleaveSixtyFourRowsAndPadWithZero) {
  const int32_t rows = 64 + 18, cols = 35, stride = 37;
  Exact<uint16_t> source(rows * stride);
  for (int64_t i = 0; i < source.size(); ++i) {
    source[i] = static_cast<uint16_t>(i + 1);
  }
  Exact<uint16_t> panels(PanelBytes(DType::kBF16, rows, cols) / 2, 7);
  PackPanels(DType::kBF16, source.data(), rows, cols, stride, panels.data());
  ASSERT_EQ(panels.size(), (64 + 32) * cols);
  for (int r = 0; r < 64 + 32; ++r) {
    for (int c = 0; c < cols; ++c) {
      EXPECT_EQ(
          r < 64 ? panels[c * 64 + r] : panels[64 * cols + c * 32 + r - 64],
          r < rows ? source[r * stride + c] : 0)
          << r << ", " << c;
    }
  }
}

TEST(TypesTest, HalvesArePackedBitForBit) {
  const uint16_t source[] = {0x7E01, 0xFFFF};
  Exact<uint16_t> panel(16 * 2, 7);
  PackPanels(DType::kF16, source, 1, 2, 2, panel.data());
  EXPECT_EQ(panel[0], 0x7E01);
  EXPECT_EQ(panel[16], 0xFFFF);
  EXPECT_EQ(panel[1], 0);
}

TEST(OpsTableTest, BestIsSupportedAndNamed) {
  EXPECT_TRUE(IsSupported(Isa::kOracle));
  EXPECT_TRUE(IsSupported(BestIsa()));
  EXPECT_EQ(CpuOps(BestIsa()).name, IsaName(BestIsa()));
  if (IsSupported(Isa::kAvx512)) {
    EXPECT_TRUE(IsSupported(Isa::kAvx2));
    EXPECT_EQ(BestIsa(), Isa::kAvx512);
  }
}

TEST(OpsTableTest, EveryTableIsFull) {
  for (Isa isa : {Isa::kOracle, Isa::kAvx2, Isa::kAvx512}) {
    if (!IsSupported(isa)) continue;
    const Ops& ops = CpuOps(isa);
    EXPECT_TRUE(ops.embed && ops.matmul && ops.rms_norm && ops.rope &&
                ops.kv_write && ops.attention && ops.route && ops.grouped_ffn &&
                ops.combine)
        << ops.name;
  }
}

TEST(OpsTableTest, NamesParse) {
  EXPECT_EQ(ParseIsa("auto").value(), BestIsa());
  EXPECT_EQ(ParseIsa("oracle").value(), Isa::kOracle);
  for (Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
    const absl::StatusOr<Isa> parsed = ParseIsa(IsaName(isa));
    if (IsSupported(isa)) {
      EXPECT_EQ(parsed.value(), isa);
    } else {
      EXPECT_EQ(parsed.status().code(), absl::StatusCode::kFailedPrecondition);
    }
  }
  for (std::string_view bad : {"", "AVX2", "sse", "avx512 "}) {
    const absl::Status status = ParseIsa(bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_NE(status.message().find("auto, oracle, avx2, avx512"),
              absl::string_view::npos);
  }
}

TEST(PrefetchTest, Zen4LeavesFewRowsToItsOwnPrefetchers) {
  const PrefetchDistance zen4 = PrefetchDistanceOf(true, 0x19, true);
  EXPECT_EQ(zen4.halves, 0);
  EXPECT_EQ(zen4.singles, 0);
  EXPECT_EQ(zen4.codes_few_rows, 0);
  EXPECT_GT(zen4.codes, 0);
  // Zen 5, and another maker's family of that number.
  EXPECT_GT(PrefetchDistanceOf(true, 0x1A, true).codes_few_rows, 0);
  EXPECT_GT(PrefetchDistanceOf(false, 0x19, true).codes_few_rows, 0);
}

TEST(PrefetchTest, Zen3IsAskedSoonerAndLeftF32) {
  const PrefetchDistance zen3 = PrefetchDistanceOf(true, 0x19, false);
  const PrefetchDistance untried = PrefetchDistanceOf(false, 6, false);
  EXPECT_EQ(zen3.singles, 0);
  EXPECT_LT(zen3.halves, untried.halves);
  EXPECT_LT(zen3.codes_few_rows, untried.codes_few_rows);
  EXPECT_GT(zen3.codes_few_rows, 0);
}

}  // namespace
}  // namespace bullpen::kernels
