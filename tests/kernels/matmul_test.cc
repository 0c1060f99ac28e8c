#include <limits>

#include "tests/kernels/kernel_testing.h"

namespace bullpen::kernels {
namespace {

using MatMulTest = OpsTest;

struct Problem {
  Problem(Random& random, int32_t tokens, int32_t rows, int32_t cols,
          DType dtype)
      : panels(random.Panels(dtype, rows, cols)),
        x_stride(cols + random.Between(0, 3)),
        y_stride(rows + random.Between(0, 3)),
        // The last row has no padding behind it.
        x(random.Vector(tokens == 0 ? 0 : (tokens - 1) * x_stride + cols)),
        y(random.Vector(tokens == 0 ? 0 : (tokens - 1) * y_stride + rows)),
        bias(random.Vector(rows)) {
    args = {.x_stride = x_stride,
            .w = {.dtype = dtype, .rows = rows, .cols = cols},
            .y_stride = y_stride,
            .tokens = tokens,
            .scale = random.OneOf({1.0f, 0.3f}),
            .add = random.Between(0, 1) == 1};
    with_bias = random.Between(0, 1) == 1;
  }

  Floats Run(const Ops& ops, Stream stream) const {
    Floats out = y;
    MatMulArgs run = args;
    run.x = x.data();
    run.w.data = panels.data();
    run.bias = with_bias ? bias.data() : nullptr;
    run.y = out.data();
    Exact<std::byte> codes(int8 ? run.tokens * Int8RowBytes(run.w.cols) : 0);
    if (int8) run.x_codes = codes.data();
    EXPECT_TRUE(ops.matmul(run, stream).ok());
    return out;
  }

  Exact<std::byte> panels;
  int64_t x_stride;
  int64_t y_stride;
  Floats x;
  Floats y;
  Floats bias;
  bool with_bias = false;
  bool int8 = false;  // x is rounded to integers
  MatMulArgs args;
};

TEST_P(MatMulTest, EqualsOracleForAnyShape) {
  for (uint32_t seed = 0; seed < 150; ++seed) {
    Random random(seed);
    const int32_t tokens = random.Between(0, 30);
    const int32_t rows = random.OneOf({1, 15, 16, 17, 33, 64, 100, 257, 2100});
    const int32_t cols = random.OneOf({1, 3, 16, 33, 64, 100, 530});
    const DType dtype = random.OneOf({DType::kF32, DType::kF16, DType::kBF16});
    const Problem problem(random, tokens, rows, cols, dtype);
    const Floats expected = problem.Run(oracle(), Threads(1));
    for (int threads : {1, 3}) {
      ASSERT_TRUE(SameBits(problem.Run(ops(), Threads(threads)), expected))
          << "seed " << seed << ": " << tokens << " x " << rows << " x " << cols
          << " " << DTypeName(dtype) << ", " << threads << " threads";
    }
  }
}

TEST_P(MatMulTest, EqualsOracleForEveryBlockType) {
  for (size_t type = 0; type < std::size(kPanelFormats); ++type) {
    const DType dtype = static_cast<DType>(type);
    if (IsPlain(dtype)) continue;
    for (uint32_t seed = 0; seed < 24; ++seed) {
      Random random(seed);
      const int32_t tokens = random.OneOf({0, 1, 2, 3, 5, 7, 12, 13, 30});
      const int32_t rows = random.OneOf({1, 16, 33, 100, 257});
      const int32_t cols =
          FormatOf(dtype).block_cols * random.OneOf({1, 2, 3, 5});
      Problem problem(random, tokens, rows, cols, dtype);
      problem.int8 = seed % 2 == 1;
      const Floats expected = problem.Run(oracle(), Threads(1));
      for (int threads : {1, 3}) {
        ASSERT_TRUE(SameBits(problem.Run(ops(), Threads(threads)), expected))
            << "seed " << seed << ": " << tokens << " x " << rows << " x "
            << cols << " " << DTypeName(dtype) << ", " << threads
            << " threads, integers " << problem.int8;
      }
    }
  }
}

// Heads of matrices that follow each other, inputs and outputs interleaved by
// token, as the projections of each head of latent attention are.
TEST_P(MatMulTest, EveryHeadHasItsMatrix) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    Random random(seed);
    const int32_t heads = random.Between(1, 9);
    const int32_t tokens = random.OneOf({0, 1, 2, 7, 60});
    const int32_t rows = random.OneOf({1, 16, 24, 40, 130});
    const int32_t cols = random.OneOf({1, 8, 33, 48});
    const DType dtype = random.OneOf({DType::kF32, DType::kBF16});
    const int64_t matrix_bytes = PanelBytes(dtype, rows, cols);
    Exact<std::byte> matrices(heads * matrix_bytes);
    for (int32_t h = 0; h < heads; ++h) {
      random.FillPanels(dtype, rows, cols, matrices.data() + h * matrix_bytes);
    }
    const Floats x = random.Vector(int64_t{tokens} * heads * cols);
    MatMulArgs args{.x = x.data(),
                    .x_stride = heads * cols,
                    .w = {.data = matrices.data(),
                          .dtype = dtype,
                          .rows = rows,
                          .cols = cols},
                    .y_stride = heads * rows,
                    .tokens = tokens,
                    .heads = heads,
                    .x_head_stride = cols,
                    .y_head_stride = rows};
    const int64_t size = int64_t{tokens} * heads * rows;
    Floats together(size), expected(size), alone(size);
    Stream three = Threads(3), one_thread = Threads(1);
    args.y = together.data();
    ASSERT_TRUE(ops().matmul(args, three).ok());
    args.y = expected.data();
    ASSERT_TRUE(oracle().matmul(args, one_thread).ok());
    ASSERT_TRUE(SameBits(together, expected)) << "seed " << seed;
    for (int32_t h = 0; h < heads; ++h) {
      MatMulArgs one = args;
      one.x += h * cols;
      one.w.data = matrices.data() + h * matrix_bytes;
      one.y = alone.data() + h * rows;
      one.heads = 1;
      ASSERT_TRUE(ops().matmul(one, one_thread).ok());
    }
    ASSERT_TRUE(SameBits(alone, expected)) << "seed " << seed;
  }
}

// The float32 product is what the integers stand for: they may differ by the
// rounding of x, half a code of 127 for each column.
TEST_P(MatMulTest, IntegersStayCloseToFloats) {
  for (size_t type = 0; type < std::size(kPanelFormats); ++type) {
    const DType dtype = static_cast<DType>(type);
    if (IsPlain(dtype)) continue;
    Random random(5);
    Problem problem(random, 7, 48, 768, dtype);
    problem.args.add = problem.with_bias = false;
    const Floats floats = problem.Run(ops(), Threads(1));
    problem.int8 = true;
    const Floats integers = problem.Run(ops(), Threads(1));
    double error = 0, square = 0;
    for (int64_t i = 0; i < floats.size(); ++i) {
      error += std::pow(floats[i] - integers[i], 2);
      square += std::pow(floats[i], 2);
    }
    EXPECT_LT(std::sqrt(error / square), 0.012) << DTypeName(dtype);
    EXPECT_GT(error, 0) << DTypeName(dtype);
  }
}

TEST_P(MatMulTest, IntegersOfSpecialValuesAreDefined) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (DType dtype : {DType::kQ8_0, DType::kQ4_K, DType::kIQ4_NL}) {
    for (const float special :
         {kInfinity, -kInfinity, std::nanf(""), 1e-40f, 1e-31f, 3e38f}) {
      Random random(6);
      Problem problem(random, 5, 40, 512, dtype);
      problem.int8 = true;
      problem.args.add = problem.with_bias = false;
      for (int c = 0; c < 512; ++c) problem.x[c] = 0.0f;
      problem.x[300] = special;
      const Floats y = problem.Run(ops(), Threads(1));
      ASSERT_TRUE(SameBits(y, problem.Run(oracle(), Threads(1))));
      for (int row = 0; row < 40; ++row) {
        if (!std::isfinite(special)) {
          EXPECT_TRUE(std::isnan(y[row]));
        } else if (special < kLeastLargest) {
          EXPECT_EQ(y[row], 0.0f);
        }
        EXPECT_TRUE(std::isfinite(y[problem.y_stride + row]));
      }
    }
  }
}

TEST_P(MatMulTest, EveryHeadHasItsIntegers) {
  Random random(9);
  const int32_t heads = 3, tokens = 5, rows = 24, cols = 64;
  const int64_t matrix_bytes = PanelBytes(DType::kQ8_0, rows, cols);
  Exact<std::byte> matrices(heads * matrix_bytes);
  FillBlockPanels(DType::kQ8_0, {matrices.data(), size_t(matrices.size())},
                  random.engine());
  const Floats x = random.Vector(int64_t{tokens} * heads * cols);
  Exact<std::byte> codes(heads * tokens * Int8RowBytes(cols));
  MatMulArgs args{.x = x.data(),
                  .x_stride = heads * cols,
                  .w = {matrices.data(), DType::kQ8_0, rows, cols},
                  .y_stride = heads * rows,
                  .tokens = tokens,
                  .x_codes = codes.data(),
                  .heads = heads,
                  .x_head_stride = cols,
                  .y_head_stride = rows};
  Floats actual(int64_t{tokens} * heads * rows), expected(actual.size());
  Stream three = Threads(3), one_thread = Threads(1);
  args.y = actual.data();
  ASSERT_TRUE(ops().matmul(args, three).ok());
  args.y = expected.data();
  ASSERT_TRUE(oracle().matmul(args, one_thread).ok());
  EXPECT_TRUE(SameBits(actual, expected));
}

TEST_P(MatMulTest, EveryNumberOfTokensHasItsTile) {
  Random random(7);
  for (int32_t tokens = 1; tokens <= 50; ++tokens) {
    for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      const Problem problem(random, tokens, 90, 37, dtype);
      ASSERT_TRUE(SameBits(problem.Run(ops(), Threads(3)),
                           problem.Run(oracle(), Threads(1))))
          << tokens << " tokens " << DTypeName(dtype);
    }
    for (DType dtype : {DType::kQ4_K, DType::kMXFP4, DType::kQ8_0}) {
      Problem problem(random, tokens, 90, 256, dtype);
      problem.int8 = true;
      ASSERT_TRUE(SameBits(problem.Run(ops(), Threads(3)),
                           problem.Run(oracle(), Threads(1))))
          << tokens << " tokens " << DTypeName(dtype);
    }
  }
}

// Few tokens take more columns at a time than many (kDotFloats).
TEST_P(MatMulTest, EveryTileGoesOnAfterItsColumns) {
  Random random(9);
  for (int32_t tokens = 1; tokens <= 13; ++tokens) {
    for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ4_K}) {
      const Problem problem(random, tokens, 112, 3328, dtype);
      ASSERT_TRUE(SameBits(problem.Run(ops(), Threads(3)),
                           problem.Run(oracle(), Threads(1))))
          << tokens << " tokens " << DTypeName(dtype);
    }
  }
}

TEST_P(MatMulTest, TokenAloneEqualsTokenInBatch) {
  Random random(8);
  const int32_t tokens = 29, rows = 200, cols = 600;
  Problem batch(random, tokens, rows, cols, DType::kBF16);
  batch.args.add = false;
  const Floats all = batch.Run(ops(), Threads(3));
  for (int32_t t = 0; t < tokens; ++t) {
    Floats alone(rows);
    MatMulArgs args = batch.args;
    args.x = batch.x.data() + t * batch.x_stride;
    args.w.data = batch.panels.data();
    args.bias = batch.with_bias ? batch.bias.data() : nullptr;
    args.y = alone.data();
    args.tokens = 1;
    Stream stream = Threads(1);
    ASSERT_TRUE(ops().matmul(args, stream).ok());
    Floats in_batch(rows);
    std::copy_n(all.data() + t * batch.y_stride, rows, in_batch.data());
    ASSERT_TRUE(SameBits(alone, in_batch)) << "token " << t;
  }
}

TEST_P(MatMulTest, SpecialValuesPropagate) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (uint32_t seed = 0; seed < 40; ++seed) {
    Random random(seed);
    Problem problem(random, random.Between(1, 14), 40, 50, DType::kF32);
    float* weights = reinterpret_cast<float*>(problem.panels.data());
    for (int i = 0; i < 40; ++i) {
      const float special =
          random.OneOf({kInfinity, -kInfinity, std::nanf(""), 0.0f, -0.0f,
                        1e-40f, -1e-45f, std::numeric_limits<float>::max()});
      problem.x[random.Between(0, static_cast<int32_t>(problem.x.size()) - 1)] =
          special;
      weights[random.Between(0, 40 * 50 - 1)] = special;
    }
    ASSERT_TRUE(SameBits(problem.Run(ops(), Threads(3)),
                         problem.Run(oracle(), Threads(1))))
        << "seed " << seed;
  }
}

TEST_P(MatMulTest, DenormalsAreNotFlushed) {
  Random random(1);
  Problem problem(random, 3, 16, 8, DType::kF32);
  problem.args.add = problem.with_bias = false;
  for (int64_t i = 0; i < problem.x.size(); ++i) problem.x[i] *= 1e-20f;
  float* weights = reinterpret_cast<float*>(problem.panels.data());
  for (int i = 0; i < 16 * 8; ++i) weights[i] *= 1e-20f;
  const Floats y = problem.Run(ops(), Threads(1));
  EXPECT_TRUE(SameBits(y, problem.Run(oracle(), Threads(1))));
  EXPECT_EQ(std::fpclassify(y[0]), FP_SUBNORMAL);
}

INSTANTIATE_FOR_EACH_ISA(MatMulTest);

}  // namespace
}  // namespace bullpen::kernels
