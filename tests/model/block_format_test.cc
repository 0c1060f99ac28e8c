// Block formats against the values that the gguf package gives for random
// blocks, bit by bit (tests/golden/README.md).

#include "kernels/block_format.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/block_quantise.h"
#include "kernels/quant_panels.h"
#include "tests/fakes/checkpoint_writer.h"

namespace bullpen {
namespace {

using kernels::BlockFormat;
using kernels::DType;

std::map<std::string, FakeTensor> Goldens() {
  std::map<std::string, FakeTensor> tensors;
  for (FakeTensor& tensor :
       ReadTensors("tests/golden/quant_blocks.safetensors")) {
    tensors[tensor.name] = tensor;
  }
  return tensors;
}

std::vector<float> Floats(const std::string& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

class BlockFormatTest : public testing::TestWithParam<const char*> {};

TEST_P(BlockFormatTest, DequantisesToTheBit) {
  const BlockFormat* format = kernels::FindBlockFormat(GetParam());
  ASSERT_NE(format, nullptr);
  auto goldens = Goldens();
  const std::string& blocks =
      goldens.at(std::string(GetParam()) + ".blocks").bytes;
  const std::vector<float> wanted =
      Floats(goldens.at(std::string(GetParam()) + ".values").bytes);
  ASSERT_EQ(blocks.size() / format->bytes * format->elements, wanted.size());
  std::vector<float> got(wanted.size());
  kernels::Dequantise(*format,
                      reinterpret_cast<const std::byte*>(blocks.data()),
                      static_cast<int64_t>(got.size()), got.data());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(Bits(got[i]), Bits(wanted[i]))
        << "element " << i << ": " << got[i] << " for " << wanted[i];
  }
}

TEST_P(BlockFormatTest, ItsExactTypeHoldsEveryValue) {
  const BlockFormat* format = kernels::FindBlockFormat(GetParam());
  ASSERT_NE(format, nullptr);
  if (format->exact == DType::kF32) return;
  for (const float value :
       Floats(Goldens().at(std::string(GetParam()) + ".values").bytes)) {
    ASSERT_EQ(kernels::ToFloat(kernels::FromFloat(value, format->exact),
                               format->exact),
              value);
  }
}

// Panels of the format's own type and of the one for all formats.
TEST_P(BlockFormatTest, PanelsKeepEveryValue) {
  constexpr int64_t kRows = 6, kCols = 768;
  const BlockFormat* format = kernels::FindBlockFormat(GetParam());
  ASSERT_NE(format, nullptr);
  auto goldens = Goldens();
  const std::string& blocks =
      goldens.at(std::string(GetParam()) + ".blocks").bytes;
  const std::vector<float> wanted =
      Floats(goldens.at(std::string(GetParam()) + ".values").bytes);
  EXPECT_EQ(kernels::DTypeName(kernels::PanelTypeOf(*format)), GetParam());
  for (const DType type : {kernels::PanelTypeOf(*format), DType::kQ8_ANY}) {
    std::vector<std::byte> panels(kernels::PanelBytes(type, kRows, kCols));
    kernels::PackBlockRows(
        type,
        {*format, reinterpret_cast<const std::byte*>(blocks.data()), kRows,
         kCols},
        0, panels.data());
    for (int64_t i = 0; i < kRows * kCols; ++i) {
      const float got = kernels::PanelElement(
          {panels.data(), type, kRows, kCols}, i / kCols, i % kCols);
      // Two of MXFP4's codes are zeros.
      ASSERT_TRUE(got == wanted[i] &&
                  (got == 0 || Bits(got) == Bits(wanted[i])))
          << "element " << i << ": " << got << " for " << wanted[i];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, BlockFormatTest,
                         testing::Values("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0",
                                         "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
                                         "IQ4_NL", "IQ4_XS", "MXFP4"),
                         [](const auto& info) {
                           return std::string(info.param);
                         });

class QuantiseTest : public testing::TestWithParam<const char*> {};

TEST_P(QuantiseTest, GivesTheBytesOfTheReference) {
  const BlockFormat* format = kernels::FindBlockFormat(GetParam());
  ASSERT_NE(format, nullptr);
  auto goldens = Goldens();
  const std::vector<float> source = Floats(goldens.at("quantise.source").bytes);
  const std::string& wanted =
      goldens.at(std::string("quantise.") + GetParam()).bytes;
  std::string got(wanted.size(), '\0');
  kernels::Quantise(*format, source.data(), static_cast<int64_t>(source.size()),
                    reinterpret_cast<std::byte*>(got.data()));
  for (size_t i = 0; i < wanted.size(); ++i) {
    ASSERT_EQ(got[i], wanted[i]) << "byte " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, QuantiseTest,
                         testing::Values("BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1",
                                         "Q8_0", "MXFP4"),
                         [](const auto& info) {
                           return std::string(info.param);
                         });

// The root of the mean squared error of values, relative to their own; `counts`
// of each multiply both.
double RelativeErrorOf(const BlockFormat& format,
                       const std::vector<float>& values,
                       const float* importance,
                       const std::vector<float>& counts) {
  const int64_t count = static_cast<int64_t>(values.size());
  std::vector<std::byte> blocks(format.RowBytes(count));
  kernels::Quantise(format, values.data(), count, blocks.data(), importance);
  std::vector<float> back(values.size());
  kernels::Dequantise(format, blocks.data(), count, back.data());
  double error = 0, square = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    error += counts[i] * (back[i] - values[i]) * (back[i] - values[i]);
    square += counts[i] * values[i] * values[i];
  }
  return std::sqrt(error / square);
}

// The root of the mean squared error of normal values, relative to their own,
// must be `share` of what plain rounding to the group's range gives.
struct SearchCase {
  const char* format;
  const char* plain;  // a format of as many bits without a search
  double share;
};

double RelativeError(const char* name, const std::vector<float>& values) {
  return RelativeErrorOf(*kernels::FindBlockFormat(name), values, nullptr,
                         std::vector<float>(values.size(), 1));
}

TEST(Quantise, SearchedScalesBeatThoseOfTheExtremeValue) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> values(1 << 16);
  for (float& value : values) value = 0.02f * normal(random);
  for (const SearchCase& c : {SearchCase{"Q4_K", "Q4_1", 0.97},
                              {"Q5_K", "Q5_1", 1.0},
                              {"IQ4_NL", "Q4_0", 0.9},
                              {"Q6_K", "Q5_0", 0.5}}) {
    const double searched = RelativeError(c.format, values);
    const double plain = RelativeError(c.plain, values);
    std::printf("%-6s %.4f, %s %.4f\n", c.format, searched, c.plain, plain);
    EXPECT_LT(searched, c.share * plain) << c.format;
  }
}

TEST(Quantise, ImportanceLessensTheErrorWhereItIs) {
  std::mt19937 random(8);
  std::normal_distribution<float> normal;
  std::vector<float> values(1 << 14), importance(1 << 14);
  for (float& value : values) value = 0.02f * normal(random);
  // As inputs have it: most columns alike, some a hundred times as large.
  for (float& count : importance) count = std::exp(1.5f * normal(random));
  for (const BlockFormat& format : kernels::BlockFormats()) {
    if (!kernels::CanQuantise(format) || format.plain) continue;
    const double with =
        RelativeErrorOf(format, values, importance.data(), importance);
    const double without = RelativeErrorOf(format, values, nullptr, importance);
    std::printf("%-6s %.4f, without %.4f\n", std::string(format.name).c_str(),
                with, without);
    if (format.name == "Q8_0") {
      EXPECT_EQ(with, without);
    } else {
      EXPECT_LT(with, 0.99 * without) << format.name;
    }
  }
}

TEST(Quantise, ZerosAndTinyAndConstantGroupsStayFinite) {
  const std::vector<float> importance(256, 1.0f);
  for (const float fill : {0.0f, 1e-30f, -1e-30f, 0.5f, -3.0f}) {
    const std::vector<float> values(256, fill);
    for (const BlockFormat& format : kernels::BlockFormats()) {
      if (!kernels::CanQuantise(format) || format.plain) continue;
      std::vector<std::byte> blocks(format.RowBytes(256));
      for (const float* counts : {(const float*)nullptr, importance.data()}) {
        kernels::Quantise(format, values.data(), 256, blocks.data(), counts);
        std::vector<float> back(256);
        kernels::Dequantise(format, blocks.data(), 256, back.data());
        for (const float value : back) {
          ASSERT_NEAR(value, fill, 0.05f * std::fabs(fill) + 1e-9f)
              << format.name << " of " << fill;
        }
      }
    }
  }
}

TEST(BlockFormats, NamesAndIdsAreUnique) {
  for (const BlockFormat& format : kernels::BlockFormats()) {
    EXPECT_EQ(kernels::FindBlockFormat(format.name), &format);
    EXPECT_EQ(kernels::FindBlockFormat(int64_t{format.gguf_id}), &format);
  }
}

TEST(BlockFormats, WholeNumbersArePlainWeightsOfNoKind) {
  EXPECT_TRUE(kernels::FindBlockFormat("BF16")->readable());
  EXPECT_FALSE(kernels::FindBlockFormat("I32")->readable());
  EXPECT_FALSE(kernels::FindBlockFormat("NVFP4")->readable());
  EXPECT_EQ(kernels::FindBlockFormat("Q4_K")->RowBytes(768), 3 * 144);
}

}  // namespace
}  // namespace bullpen
