#include <limits>

#include "tests/kernels/kernel_testing.h"

namespace bullpen::kernels {
namespace {

using AttentionTest = OpsTest;

struct Shape {
  int32_t kv_heads = 2;
  int32_t group = 2;
  int32_t k_dim = 64;
  int32_t v_dim = 64;
  KvType type = KvType::kF32;
  bool value_in_key = false;
  int32_t window = 0;
  bool sinks = false;
};

Shape RandomShape(Random& random) {
  Shape shape;
  shape.kv_heads = random.Between(1, 3);
  shape.group = random.OneOf({1, 1, 2, 3, 4, 7, 8, 18, 50});
  shape.k_dim = random.OneOf({1, 8, 20, 64, 80});
  shape.v_dim = random.OneOf({1, 7, 16, 33, 64, 80, 96, 128});
  shape.type = random.OneOf({KvType::kF32, KvType::kF16, KvType::kInt8});
  shape.value_in_key = random.Between(0, 2) == 0;
  if (shape.value_in_key) {
    // More than a slice of values, and a key with something behind it.
    shape.v_dim = random.OneOf({1, 7, 16, 33, 72, 128});
    shape.k_dim = shape.v_dim + random.OneOf({0, 1, 8});
  }
  shape.window = random.OneOf({0, 0, 1, 2, 5, 16, 40, 300});
  shape.sinks = random.Between(0, 1) == 1;
  return shape;
}

// Sequences whose earlier positions are in the cache already. What no row has
// written yet is NaN.
class Cache {
 public:
  Cache(Random& random, const Shape& shape) : random_(random), shape_(shape) {}

  // `rows` new rows after `cached` positions.
  void AddSequence(int32_t cached, int32_t rows) {
    Sequence sequence{.cached = cached, .rows = rows, .first_row = tokens_};
    for (int32_t i = 0; i < (cached + rows + 15) / 16; ++i) {
      sequence.blocks.push_back(blocks_++);
    }
    sequences_.push_back(std::move(sequence));
    tokens_ += rows;
  }

  // Call once, after all sequences: fills the pool through the oracle.
  void Write() {
    // Blocks in any order, as a pool gives them out.
    std::vector<int32_t> order(blocks_);
    for (int32_t i = 0; i < blocks_; ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random_.engine());
    const int64_t bytes = blocks_ * BlockBytes();
    pool_ = Exact<std::byte>(bytes, std::byte{0xFF});  // NaN in F32 and F16.
    Stream stream;
    for (Sequence& sequence : sequences_) {
      for (int32_t& block : sequence.blocks) block = order[block];
      const int32_t length = sequence.cached + sequence.rows;
      const Floats k =
          random_.Vector(int64_t{length} * shape_.kv_heads * shape_.k_dim);
      const Floats v =
          random_.Vector(int64_t{length} * shape_.kv_heads * shape_.v_dim);
      const KvSequence all{.blocks = sequence.blocks.data(), .rows = length};
      const KvWriteArgs args{.k = k.data(),
                             .k_stride = shape_.kv_heads * shape_.k_dim,
                             .v = v.data(),
                             .v_stride = shape_.kv_heads * shape_.v_dim,
                             .layer = Layer(),
                             .sequences = &all,
                             .sequence_count = 1};
      ASSERT_TRUE(CpuOps(Isa::kOracle).kv_write(args, stream).ok());
    }
    const int32_t heads = shape_.kv_heads * shape_.group;
    q_ = random_.Vector(int64_t{tokens_} * heads * shape_.k_dim);
    sinks_ = random_.Vector(heads);
  }

  // All rows in one call; `room` is for parts that threads share.
  Floats Run(const Ops& ops, Stream stream, int64_t room) {
    std::vector<KvSequence> rows;
    for (const Sequence& sequence : sequences_) {
      rows.push_back({.blocks = sequence.blocks.data(),
                      .first_row = sequence.first_row,
                      .rows = sequence.rows,
                      .first_position = sequence.cached});
    }
    return RunRows(ops, stream, rows, room);
  }

  // The rows of each sequence in chunks of `chunk`.
  Floats RunChunked(const Ops& ops, Stream stream, int32_t chunk) {
    Floats out(tokens_ * OutWidth());
    for (const Sequence& sequence : sequences_) {
      for (int32_t begin = 0; begin < sequence.rows; begin += chunk) {
        const KvSequence rows{.blocks = sequence.blocks.data(),
                              .first_row = sequence.first_row + begin,
                              .rows = std::min(chunk, sequence.rows - begin),
                              .first_position = sequence.cached + begin};
        const Floats part = RunRows(ops, stream, {rows}, 1 << 14);
        std::copy_n(part.data() + rows.first_row * OutWidth(),
                    rows.rows * OutWidth(),
                    out.data() + rows.first_row * OutWidth());
      }
    }
    return out;
  }

  std::byte* pool() { return pool_.data(); }

 private:
  struct Sequence {
    int32_t cached = 0;
    int32_t rows = 0;
    int32_t first_row = 0;
    std::vector<int32_t> blocks = {};
  };

  int64_t OutWidth() const {
    return int64_t{shape_.kv_heads} * shape_.group * shape_.v_dim;
  }
  int64_t BlockBytes() { return Layer().block_bytes(); }
  KvLayer Layer() {
    return {.base = pool_.data(),
            .type = shape_.type,
            .blocks = blocks_,
            .kv_heads = shape_.kv_heads,
            .k_dim = shape_.k_dim,
            .v_dim = shape_.v_dim,
            .value_in_key = shape_.value_in_key};
  }

  Floats RunRows(const Ops& ops, Stream stream,
                 const std::vector<KvSequence>& rows, int64_t room) {
    const int64_t stride = AttentionScratch(shape_.v_dim);
    Floats scratch(3 * stride);
    Floats partials(room);
    Floats out(tokens_ * OutWidth());
    const int32_t heads = shape_.kv_heads * shape_.group;
    const AttentionArgs args{
        .q = q_.data(),
        .q_stride = heads * shape_.k_dim,
        .out = out.data(),
        .out_stride = OutWidth(),
        .layer = Layer(),
        .sequences = rows.data(),
        .sequence_count = static_cast<int32_t>(rows.size()),
        .heads = heads,
        .scale = 0.125f,
        .window = shape_.window,
        .sinks = shape_.sinks ? sinks_.data() : nullptr,
        .scratch = scratch.data(),
        .scratch_stride = stride,
        .partials = partials.data(),
        .partials_room = room};
    EXPECT_TRUE(ops.attention(args, stream).ok());
    return out;
  }

  Random& random_;
  Shape shape_;
  int32_t tokens_ = 0;
  int32_t blocks_ = 0;
  std::vector<Sequence> sequences_;
  Exact<std::byte> pool_{0};
  Floats q_{0};
  Floats sinks_{0};
};

TEST_P(AttentionTest, EqualsOracleForAnyShape) {
  for (uint32_t seed = 0; seed < 120; ++seed) {
    Random random(seed);
    const Shape shape = RandomShape(random);
    Cache cache(random, shape);
    for (int32_t i = random.Between(1, 3); i > 0; --i) {
      cache.AddSequence(
          random.OneOf({0, 1, 15, 16, 37, 150, 255, 256, 600, 1500}),
          random.OneOf({0, 1, 1, 2, 5, 19, 60}));
    }
    cache.Write();
    const Floats expected = cache.Run(oracle(), Threads(1), 0);
    for (int threads : {1, 3}) {
      for (int64_t room : {0, 1 << 10, 1 << 13, 1 << 18}) {
        ASSERT_TRUE(
            SameBits(cache.Run(ops(), Threads(threads), room), expected))
            << "seed " << seed << ", threads " << threads << ", room " << room
            << ", KV heads " << shape.kv_heads << ", group " << shape.group
            << ", k_dim " << shape.k_dim << ", v_dim " << shape.v_dim
            << ", window " << shape.window << ", value in key "
            << shape.value_in_key << ", type " << static_cast<int>(shape.type);
      }
    }
  }
}

TEST_P(AttentionTest, ChunksEqualTheWhole) {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    Random random(seed);
    Shape shape = RandomShape(random);
    Cache cache(random, shape);
    cache.AddSequence(random.OneOf({0, 20, 500}), 70);
    cache.Write();
    const Floats whole = cache.Run(ops(), Threads(3), 0);
    for (int32_t chunk : {1, 7, 16, 64}) {
      ASSERT_TRUE(SameBits(cache.RunChunked(ops(), Threads(1), chunk), whole))
          << "seed " << seed << ", chunk " << chunk;
    }
  }
}

TEST_P(AttentionTest, PositionsNotWrittenYetDoNotReachAResult) {
  // The pool is NaN where nothing was written: one length inside each part of
  // a block.
  Random random(5);
  for (int32_t length = 1; length <= 33; ++length) {
    Cache cache(random, {.kv_heads = 1, .group = 2, .k_dim = 8, .v_dim = 24});
    cache.AddSequence(0, length);
    cache.Write();
    const Floats out = cache.Run(ops(), Threads(1), 0);
    for (int64_t i = 0; i < out.size(); ++i) {
      ASSERT_TRUE(std::isfinite(out[i])) << "length " << length << " at " << i;
    }
  }
}

TEST_P(AttentionTest, LaterInfiniteValueDoesNotReachEarlierRows) {
  Random random(6);
  Cache cache(random, {.kv_heads = 1, .group = 1, .k_dim = 16, .v_dim = 16});
  cache.AddSequence(0, 4);  // One tile of four rows.
  cache.Write();
  float* pool = reinterpret_cast<float*>(cache.pool());
  float* values = pool + 16 * 16;
  values[3 * 16] = std::numeric_limits<float>::infinity();
  const Floats out = cache.Run(ops(), Threads(1), 0);
  EXPECT_TRUE(std::isfinite(out[0]));
  EXPECT_TRUE(std::isfinite(out[2 * 16]));
  EXPECT_TRUE(std::isinf(out[3 * 16]));
}

TEST_P(AttentionTest, OneKeyGivesItsValue) {
  Random random(9);
  Cache cache(random, {.kv_heads = 1, .group = 1, .k_dim = 4, .v_dim = 5});
  cache.AddSequence(0, 1);
  cache.Write();
  const float* values = reinterpret_cast<float*>(cache.pool()) + 4 * 16;
  const Floats out = cache.Run(ops(), Threads(1), 0);
  for (int d = 0; d < 5; ++d) EXPECT_EQ(out[d], values[d]);
}

INSTANTIATE_FOR_EACH_ISA(AttentionTest);

}  // namespace
}  // namespace bullpen::kernels
