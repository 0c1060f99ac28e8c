#include <algorithm>
#include <numeric>

#include "tests/kernels/kernel_testing.h"

namespace bullpen::kernels {
namespace {

using GroupedFfnTest = OpsTest;

void FillBias(Random& random, int32_t count, std::byte* out) {
  const Floats bias = random.Vector(count);
  std::memcpy(out, bias.data(), sizeof(float) * count);
}

// Entries spread over experts, slots shuffled.
struct Problem {
  Problem(Random& random, ExpertShape expert_shape, int32_t tokens,
          std::vector<int32_t> rows_of_expert)
      : shape(expert_shape), x(random.Vector(int64_t{tokens} * shape.dim)) {
    for (int32_t rows : rows_of_expert) {
      Exact<std::byte> blob(shape.bytes());
      random.FillPanels(shape.dtype, shape.inner, shape.dim, blob.data());
      random.FillPanels(shape.dtype, shape.inner, shape.dim,
                        blob.data() + shape.gate_bytes());
      random.FillPanels(shape.down_dtype(), shape.dim, shape.inner,
                        blob.data() + shape.down_offset());
      if (shape.bias) {
        FillBias(random, shape.inner, blob.data() + shape.gate_bias_offset());
        FillBias(random, shape.inner, blob.data() + shape.up_bias_offset());
        FillBias(random, shape.dim, blob.data() + shape.down_bias_offset());
      }
      blobs.push_back(std::move(blob));
      const int32_t begin = static_cast<int32_t>(x_row.size());
      for (int32_t i = 0; i < rows; ++i) {
        x_row.push_back(random.Between(0, tokens - 1));
      }
      groups.push_back({.blob = blobs.back().data(),
                        .begin = begin,
                        .end = static_cast<int32_t>(x_row.size())});
    }
    slot.resize(x_row.size());
    std::iota(slot.begin(), slot.end(), 0);
    std::shuffle(slot.begin(), slot.end(), random.engine());
  }

  Floats Run(const Ops& ops, Stream stream,
             const std::vector<ExpertRows>& some) const {
    const int64_t entries = static_cast<int64_t>(slot.size());
    Floats y(entries * shape.dim, -1.0f);
    Floats scratch(entries * 2 * shape.inner);
    Exact<std::byte> codes(int8 ? entries * shape.code_row_bytes() : 0);
    const int64_t x_rows = static_cast<int64_t>(x.size()) / shape.dim;
    Exact<std::byte> x_codes(shared_x ? x_rows * Int8RowBytes(shape.dim) : 0);
    const GroupedFfnArgs args{.x = x.data(),
                              .x_stride = shape.dim,
                              .shape = shape,
                              .activation = activation,
                              .groups = some.data(),
                              .group_count = static_cast<int32_t>(some.size()),
                              .x_row = x_row.data(),
                              .slot = slot.data(),
                              .y = y.data(),
                              .scratch = scratch.data(),
                              .codes = int8 ? codes.data() : nullptr,
                              .x_codes = shared_x ? x_codes.data() : nullptr,
                              .x_rows = static_cast<int32_t>(x_rows)};
    EXPECT_TRUE(ops.grouped_ffn(args, stream).ok());
    return y;
  }

  ExpertShape shape;
  Activation activation;
  Floats x;
  std::vector<Exact<std::byte>> blobs;
  std::vector<ExpertRows> groups;
  std::vector<int32_t> x_row;
  std::vector<int32_t> slot;
  bool int8 = false;      // activations are rounded to integers
  bool shared_x = false;  // x once for all experts, if it pays
};

ExpertShape RandomShape(Random& random) {
  return {.dtype = random.OneOf({DType::kF32, DType::kF16, DType::kBF16}),
          .dim = random.OneOf({1, 16, 33, 64, 200}),
          .inner = random.OneOf({1, 15, 16, 48, 70, 130, 1100}),
          .bias = random.Between(0, 1) == 1};
}

Activation RandomActivation(Random& random) {
  if (random.Between(0, 1) == 0) return {};
  return {.kind = Activation::Kind::kClampedSwiGlu,
          .alpha = random.OneOf({1.0f, 1.702f}),
          .limit = random.OneOf({0.1f, 1.0f, 7.0f})};
}

TEST_P(GroupedFfnTest, EqualsOracleForAnyShape) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    Random random(seed);
    std::vector<int32_t> rows(random.Between(1, 6));
    for (int32_t& count : rows) count = random.OneOf({0, 1, 1, 2, 5, 13, 30});
    Problem problem(random, RandomShape(random), 9, rows);
    problem.activation = RandomActivation(random);
    if (random.Between(0, 7) == 0) problem.x[0] = std::nanf("");
    const Floats expected = problem.Run(oracle(), Threads(1), problem.groups);
    for (int threads : {1, 3}) {
      ASSERT_TRUE(SameBits(problem.Run(ops(), Threads(threads), problem.groups),
                           expected))
          << "seed " << seed << ", " << threads << " threads, dim "
          << problem.shape.dim << ", inner " << problem.shape.inner;
    }
  }
}

TEST_P(GroupedFfnTest, GroupsInAnyOrderGiveTheSameBits) {
  Random random(2);
  const Problem problem(random, {.dtype = DType::kBF16, .dim = 64, .inner = 48},
                        5, {3, 1, 14, 2});
  const Floats expected = problem.Run(ops(), Threads(1), problem.groups);
  std::vector<ExpertRows> reversed(problem.groups.rbegin(),
                                   problem.groups.rend());
  EXPECT_TRUE(SameBits(problem.Run(ops(), Threads(3), reversed), expected));
}

TEST_P(GroupedFfnTest, EqualsOracleForBlockTypesWithFloatsAndIntegers) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    Random random(seed);
    std::vector<int32_t> rows(random.Between(1, 6));
    for (int32_t& count : rows) count = random.OneOf({0, 1, 1, 2, 5, 13, 30});
    ExpertShape shape = {
        .dtype = random.OneOf({DType::kQ4_K, DType::kMXFP4, DType::kQ8_0}),
        .dim = 256 * random.Between(1, 2),
        .inner = 256 * random.Between(1, 2),
        .bias = random.Between(0, 1) == 1};
    if (seed % 3 == 0) {
      shape.other_down =
          random.OneOf({DType::kQ6_K, DType::kQ5_K, DType::kBF16});
    }
    Problem problem(random, shape, 9, rows);
    problem.activation = RandomActivation(random);
    problem.int8 = seed % 4 != 0;
    problem.shared_x = problem.int8 && seed % 2 == 0;
    const Floats expected = problem.Run(oracle(), Threads(1), problem.groups);
    for (int threads : {1, 3}) {
      ASSERT_TRUE(SameBits(problem.Run(ops(), Threads(threads), problem.groups),
                           expected))
          << "seed " << seed << ", " << threads << " threads, integers "
          << problem.int8 << ", " << DTypeName(shape.dtype) << " and "
          << DTypeName(shape.down_dtype());
    }
  }
}

// gpt-oss: both products are clamped, the gate from above only.
TEST_P(GroupedFfnTest, ClampedSwiGluIsWhatItsHeaderSays) {
  const float alpha = 1.702f, limit = 2.0f, down = 0.5f, down_bias = 0.25f;
  for (const float gate : {-9.0f, -0.5f, 1.5f, 30.0f}) {
    for (const float up : {-9.0f, 0.3f, 9.0f}) {
      Random random(0);
      Problem problem(
          random, {.dtype = DType::kF32, .dim = 1, .inner = 1, .bias = true}, 1,
          {1});
      problem.activation = {Activation::Kind::kClampedSwiGlu, alpha, limit};
      std::byte* blob = problem.blobs[0].data();
      const ExpertShape& shape = problem.shape;
      const auto put = [&](int64_t offset, float value) {
        std::memcpy(blob + offset, &value, sizeof(value));
      };
      put(0, gate);
      put(shape.gate_bytes(), up);
      put(shape.down_offset(), down);
      put(shape.gate_bias_offset(), 0.125f);
      put(shape.up_bias_offset(), -0.125f);
      put(shape.down_bias_offset(), down_bias);
      problem.x[0] = 1.0f;
      const double g = std::min(gate + 0.125f, limit);
      const double u = std::clamp(up - 0.125f, -limit, limit);
      const double h = g / (1 + std::exp(-alpha * g)) * (u + 1);
      EXPECT_NEAR(problem.Run(ops(), Threads(1), problem.groups)[0],
                  h * down + down_bias, 1e-6)
          << "gate " << gate << ", up " << up;
    }
  }
}

TEST_P(GroupedFfnTest, OnlyTheRowsOfTheCallAreWritten) {
  Random random(3);
  const Problem problem(random, {.dtype = DType::kF16, .dim = 20, .inner = 16},
                        5, {2, 2});
  const Floats y = problem.Run(ops(), Threads(1), {problem.groups[1]});
  for (int32_t entry = 0; entry < 2; ++entry) {
    for (int d = 0; d < 20; ++d) {
      EXPECT_EQ(y[problem.slot[entry] * 20 + d], -1.0f);
    }
  }
}

TEST_P(GroupedFfnTest, NoGroupsAndNoRowsAreFine) {
  Random random(4);
  const Problem problem(random, {.dtype = DType::kF32, .dim = 16, .inner = 16},
                        1, {0, 0});
  EXPECT_EQ(problem.Run(ops(), Threads(1), problem.groups).size(), 0);
  EXPECT_EQ(problem.Run(ops(), Threads(1), {}).size(), 0);
}

INSTANTIATE_FOR_EACH_ISA(GroupedFfnTest);

}  // namespace
}  // namespace bullpen::kernels
