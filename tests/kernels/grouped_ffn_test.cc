#include <algorithm>
#include <numeric>

#include "tests/kernels/kernel_testing.h"

namespace bullpen::kernels {
namespace {

using GroupedFfnTest = OpsTest;

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
      random.FillPanels(shape.dtype, shape.dim, shape.inner,
                        blob.data() + shape.down_offset());
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
    const GroupedFfnArgs args{.x = x.data(),
                              .x_stride = shape.dim,
                              .shape = shape,
                              .groups = some.data(),
                              .group_count = static_cast<int32_t>(some.size()),
                              .x_row = x_row.data(),
                              .slot = slot.data(),
                              .y = y.data(),
                              .scratch = scratch.data()};
    EXPECT_TRUE(ops.grouped_ffn(args, stream).ok());
    return y;
  }

  ExpertShape shape;
  Floats x;
  std::vector<Exact<std::byte>> blobs;
  std::vector<ExpertRows> groups;
  std::vector<int32_t> x_row;
  std::vector<int32_t> slot;
};

ExpertShape RandomShape(Random& random) {
  return {.dtype = random.OneOf({DType::kF32, DType::kF16, DType::kBF16}),
          .dim = random.OneOf({1, 16, 33, 64, 200}),
          .inner = random.OneOf({1, 15, 16, 48, 70, 130})};
}

TEST_P(GroupedFfnTest, EqualsOracleForAnyShape) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    Random random(seed);
    std::vector<int32_t> rows(random.Between(1, 6));
    for (int32_t& count : rows) count = random.OneOf({0, 1, 1, 2, 5, 13, 30});
    const Problem problem(random, RandomShape(random), 9, rows);
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
