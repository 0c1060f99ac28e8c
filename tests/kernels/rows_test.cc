// The ops that work row by row: embed, norms, rope, combine, kv_write.

#include <limits>

#include "tests/kernels/kernel_testing.h"

namespace bullpen::kernels {
namespace {

using RowsTest = OpsTest;

Floats Embed(const Ops& ops, Stream stream, EmbedArgs args) {
  Floats out(int64_t{args.tokens} * args.table.cols);
  args.out = out.data();
  EXPECT_TRUE(ops.embed(args, stream).ok());
  return out;
}

TEST_P(RowsTest, EmbedEqualsOracle) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    Random random(seed);
    const DType dtype = random.OneOf({DType::kF32, DType::kF16, DType::kBF16});
    const int32_t vocab = random.OneOf({1, 16, 50, 90, 130});
    const int32_t dim = random.OneOf({1, 15, 16, 33, 256});
    const Exact<std::byte> table = random.Panels(dtype, vocab, dim);
    Exact<int32_t> ids(random.OneOf({0, 1, 40, 200}));
    for (int64_t i = 0; i < ids.size(); ++i) {
      ids[i] = random.Between(0, vocab - 1);
    }
    const EmbedArgs args{.table = {.data = table.data(),
                                   .dtype = dtype,
                                   .rows = vocab,
                                   .cols = dim},
                         .ids = ids.data(),
                         .tokens = static_cast<int32_t>(ids.size()),
                         .scale = random.OneOf({1.0f, 16.0f, 0.3f})};
    ASSERT_TRUE(SameBits(Embed(ops(), Threads(3), args),
                         Embed(oracle(), Threads(1), args)))
        << "seed " << seed << ", dim " << dim;
  }
}

Floats RmsNorm(const Ops& ops, Stream stream, RmsNormArgs args, const Floats& x,
               bool in_place) {
  Floats copy = x;
  Floats y(x.size());
  args.x = copy.data();
  args.y = in_place ? copy.data() : y.data();
  args.y_stride = args.x_stride;
  EXPECT_TRUE(ops.rms_norm(args, stream).ok());
  // Elements between the rows are nobody's: leave them out of the comparison.
  Floats rows(int64_t{args.tokens} * args.heads * args.dim);
  for (int64_t t = 0; t < args.tokens; ++t) {
    std::copy_n(args.y + t * args.y_stride, args.heads * args.dim,
                rows.data() + t * args.heads * args.dim);
  }
  return rows;
}

TEST_P(RowsTest, RmsNormEqualsOracle) {
  for (uint32_t seed = 0; seed < 150; ++seed) {
    Random random(seed);
    RmsNormArgs args{.heads = random.Between(1, 5),
                     .tokens = random.OneOf({0, 1, 3, 100}),
                     .dim = random.OneOf({1, 7, 8, 9, 16, 20, 64, 333}),
                     .eps = random.OneOf({1e-6f, 0.0f})};
    args.x_stride = args.heads * args.dim + random.Between(0, 3);
    const int64_t size = args.tokens == 0 ? 0
                                          : (args.tokens - 1) * args.x_stride +
                                                args.heads * args.dim;
    Floats x = random.Vector(size);
    if (size > 0 && random.Between(0, 3) == 0) {
      x[random.Between(0, static_cast<int32_t>(size) - 1)] =
          random.OneOf({std::numeric_limits<float>::infinity(), std::nanf(""),
                        1e-42f, 1e30f});
    }
    const Floats weight = random.Vector(args.dim);
    if (random.Between(0, 3) > 0) args.weight = weight.data();
    const Floats expected = RmsNorm(oracle(), Threads(1), args, x, false);
    for (bool in_place : {false, true}) {
      ASSERT_TRUE(
          SameBits(RmsNorm(ops(), Threads(3), args, x, in_place), expected))
          << "seed " << seed << ", dim " << args.dim << ", in place "
          << in_place;
    }
  }
}

Floats LayerNorm(const Ops& ops, Stream stream, LayerNormArgs args,
                 const Floats& x) {
  Floats y = x;  // In place: elements between the rows stay.
  args.x = y.data();
  args.y = y.data();
  args.y_stride = args.x_stride;
  EXPECT_TRUE(ops.layer_norm(args, stream).ok());
  return y;
}

TEST_P(RowsTest, LayerNormEqualsOracle) {
  for (uint32_t seed = 0; seed < 100; ++seed) {
    Random random(seed);
    LayerNormArgs args{.tokens = random.OneOf({0, 1, 3, 100}),
                       .dim = random.OneOf({1, 7, 8, 9, 16, 20, 64, 333}),
                       .eps = random.OneOf({1e-5f, 0.0f})};
    args.x_stride = args.dim + random.Between(0, 3);
    Floats x = random.Vector(args.tokens * args.x_stride);
    if (x.size() > 0 && random.Between(0, 3) == 0) {
      x[random.Between(0, static_cast<int32_t>(x.size()) - 1)] =
          random.OneOf({std::numeric_limits<float>::infinity(), std::nanf(""),
                        1e-42f, 1e30f});
    }
    const Floats weight = random.Vector(args.dim);
    const Floats bias = random.Vector(args.dim);
    args.weight = weight.data();
    args.bias = bias.data();
    ASSERT_TRUE(SameBits(LayerNorm(ops(), Threads(3), args, x),
                         LayerNorm(oracle(), Threads(1), args, x)))
        << "seed " << seed << ", dim " << args.dim;
  }
}

TEST_P(RowsTest, LayerNormCentresAndScales) {
  Floats x(4), weight(4, 2.0f), bias(4, 0.5f);
  for (int i = 0; i < 4; ++i) x[i] = static_cast<float>(10 + 2 * i);
  const Floats y = LayerNorm(ops(), Threads(1),
                             {.x_stride = 4,
                              .weight = weight.data(),
                              .bias = bias.data(),
                              .tokens = 1,
                              .dim = 4,
                              .eps = 0},
                             x);
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(y[i], (2 * i - 3) / std::sqrt(5.0) * 2 + 0.5, 1e-6) << i;
  }
}

Floats Rope(const Ops& ops, Stream stream, RopeArgs args, const Floats& x) {
  Floats out = x;
  args.x = out.data();
  EXPECT_TRUE(ops.rope(args, stream).ok());
  return out;
}

TEST_P(RowsTest, RopeEqualsOracle) {
  for (uint32_t seed = 0; seed < 100; ++seed) {
    Random random(seed);
    RopeArgs args{.tokens = random.OneOf({0, 1, 4, 90}),
                  .heads = random.Between(1, 4),
                  .rotary_dim = random.OneOf({2, 6, 32, 34, 64, 80}),
                  .interleaved = random.Between(0, 1) == 1};
    args.head_dim = args.rotary_dim + random.OneOf({0, 0, 5, 16});
    args.x_stride = args.heads * args.head_dim;
    const Floats x = random.Vector(args.tokens * args.x_stride);
    const int64_t angles = int64_t{args.tokens} * args.rotary_dim / 2;
    Floats cos = random.Vector(angles), sin = random.Vector(angles);
    for (int64_t i = 0; i < angles; ++i) {
      sin[i] = std::sin(cos[i]);
      cos[i] = std::cos(cos[i]);
    }
    args.cos = cos.data();
    args.sin = sin.data();
    ASSERT_TRUE(SameBits(Rope(ops(), Threads(3), args, x),
                         Rope(oracle(), Threads(1), args, x)))
        << "seed " << seed << ", rotary " << args.rotary_dim << " of "
        << args.head_dim << ", interleaved " << args.interleaved;
  }
}

TEST_P(RowsTest, RopeLeavesTheRestOfAHeadAlone) {
  Random random(4);
  const Floats x = random.Vector(24);
  const Floats angle(4, 0.6f);
  const Floats out = Rope(ops(), Threads(1),
                          {.x_stride = 24,
                           .tokens = 1,
                           .heads = 2,
                           .head_dim = 12,
                           .rotary_dim = 8,
                           .cos = angle.data(),
                           .sin = angle.data()},
                          x);
  for (int i : {8, 9, 10, 11, 20, 21, 22, 23}) EXPECT_EQ(out[i], x[i]);
  EXPECT_NE(out[12], x[12]);
}

Floats Combine(const Ops& ops, Stream stream, CombineArgs args,
               const Floats& h) {
  Floats out = h;
  args.h = out.data();
  EXPECT_TRUE(ops.combine(args, stream).ok());
  return out;
}

TEST_P(RowsTest, CombineEqualsOracle) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    Random random(seed);
    CombineArgs args{.tokens = random.OneOf({0, 1, 2, 70}),
                     .k = random.Between(1, 9),
                     .dim = random.OneOf({1, 15, 16, 100, 257}),
                     .scale = random.OneOf({1.0f, 0.22f})};
    const int64_t slots = int64_t{args.tokens} * args.k;
    const Floats y = random.Vector(slots * args.dim);
    const Floats weights = random.Vector(slots);
    const Floats h = random.Vector(int64_t{args.tokens} * args.dim);
    args.y = y.data();
    args.weights = weights.data();
    ASSERT_TRUE(SameBits(Combine(ops(), Threads(3), args, h),
                         Combine(oracle(), Threads(1), args, h)))
        << "seed " << seed;
  }
}

// Three sequences in one batch; the whole pool is compared.
Exact<std::byte> KvWrite(const Ops& ops, Stream stream, uint32_t seed) {
  Random random(seed);
  KvLayer layer{
      .type = random.OneOf({KvType::kF32, KvType::kF16, KvType::kInt8}),
      .kv_heads = random.Between(1, 3),
      .k_dim = random.OneOf({1, 16, 20, 64, 80}),
      .v_dim = random.OneOf({1, 7, 33, 64}),
      .value_in_key = random.Between(0, 3) == 0};
  const int64_t block_bytes = layer.block_bytes();
  std::vector<std::vector<int32_t>> blocks;
  std::vector<KvSequence> sequences;
  int32_t tokens = 0, taken = 0;
  for (int i = 0; i < 3; ++i) {
    const int32_t first = random.OneOf({0, 3, 15, 16});
    const int32_t rows = random.OneOf({0, 1, 17, 40});
    std::vector<int32_t> table((first + rows + 15) / 16);
    for (int32_t& block : table) block = taken++;
    blocks.push_back(std::move(table));
    sequences.push_back({.blocks = blocks.back().data(),
                         .first_row = tokens,
                         .rows = rows,
                         .first_position = first});
    tokens += rows;
  }
  Exact<std::byte> pool(taken * block_bytes, std::byte{0x55});
  layer.base = pool.data();
  layer.blocks = taken;
  const Floats k =
      random.Vector(int64_t{tokens} * layer.kv_heads * layer.k_dim);
  const Floats v =
      random.Vector(int64_t{tokens} * layer.kv_heads * layer.v_dim);
  const KvWriteArgs args{.k = k.data(),
                         .k_stride = layer.kv_heads * layer.k_dim,
                         .v = v.data(),
                         .v_stride = layer.kv_heads * layer.v_dim,
                         .layer = layer,
                         .sequences = sequences.data(),
                         .sequence_count = 3};
  EXPECT_TRUE(ops.kv_write(args, stream).ok());
  return pool;
}

TEST_P(RowsTest, KvWriteEqualsOracle) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const Exact<std::byte> actual = KvWrite(ops(), Threads(3), seed);
    const Exact<std::byte> expected = KvWrite(oracle(), Threads(1), seed);
    ASSERT_EQ(actual.size(), expected.size());
    ASSERT_EQ(std::memcmp(actual.data(), expected.data(),
                          static_cast<size_t>(actual.size())),
              0)
        << "seed " << seed;
  }
}

// One head of 20 elements, one token; its scale and codes.
struct Int8Key {
  float scale;
  int8_t codes[20];
};
Int8Key WriteInt8(const Ops& ops, const Floats& key) {
  KvLayer layer{.type = KvType::kInt8,
                .blocks = 1,
                .kv_heads = 1,
                .k_dim = 20,
                .v_dim = 20,
                .value_in_key = true};
  Exact<std::byte> pool(layer.block_bytes());
  layer.base = pool.data();
  const int32_t block = 0;
  const KvSequence sequence{.blocks = &block, .rows = 1, .first_position = 3};
  Stream stream;
  EXPECT_TRUE(ops.kv_write({.k = key.data(),
                            .k_stride = 20,
                            .layer = layer,
                            .sequences = &sequence,
                            .sequence_count = 1},
                           stream)
                  .ok());
  Int8Key result;
  std::memcpy(&result.scale, pool.data() + 3 * sizeof(float), sizeof(float));
  for (int d = 0; d < 20; ++d) {
    result.codes[d] = static_cast<int8_t>(pool[64 + d * 16 + 3]);
  }
  return result;
}

TEST_P(RowsTest, Int8KeysAreWithinHalfAStepOfTheirScale) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    Random random(seed);
    const Floats key =
        random.Vector(20, std::ldexp(1.0f, random.Between(-90, 90)));
    const Int8Key stored = WriteInt8(ops(), key);
    for (int d = 0; d < 20; ++d) {
      EXPECT_LE(std::fabs(key[d] - stored.scale * stored.codes[d]),
                0.501f * stored.scale)
          << "seed " << seed << ", element " << d;
    }
  }
}

TEST_P(RowsTest, Int8KeepsZerosInfinitiesAndNaN) {
  Floats key(20);
  EXPECT_EQ(WriteInt8(ops(), key).scale, 0);
  key[2] = 1e-40f;  // A denormal counts as nothing.
  EXPECT_EQ(WriteInt8(ops(), key).scale, 0);
  key[17] = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(WriteInt8(ops(), key).scale,
            std::numeric_limits<float>::infinity());
  key[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(WriteInt8(ops(), key).scale));
  EXPECT_TRUE(std::isnan(WriteInt8(oracle(), key).scale));
}

INSTANTIATE_FOR_EACH_ISA(RowsTest);

}  // namespace
}  // namespace bullpen::kernels
