// Invariant 7: budget, threads, instruction set, chunking and batch never
// change a bit of the logits.

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "tests/fakes/decoder.h"
#include "tests/fakes/golden.h"

namespace bullpen {
namespace {

constexpr char kSource[] = "models/default";

std::vector<int32_t> Prompt() {
  std::vector<int32_t> ids;
  for (const auto& prompt : LoadGolden(kSource).prompts) {
    ids.insert(ids.end(), prompt.begin(), prompt.end());
  }
  return ids;  // 62 tokens
}

ModelOptions SmallOptions() {
  ModelOptions options;
  options.threads = 1;
  options.context = 256;
  return options;
}

const std::vector<float>& Reference() {
  static const std::vector<float> logits =
      Decoder(kSource, SmallOptions()).Feed(Prompt(), 256);
  return logits;
}

void ExpectSameBits(const std::vector<float>& logits) {
  const std::vector<float>& wanted = Reference();
  ASSERT_EQ(logits.size(), wanted.size());
  ASSERT_EQ(
      std::memcmp(logits.data(), wanted.data(), wanted.size() * sizeof(float)),
      0);
}

class BudgetTest : public testing::TestWithParam<int> {};

TEST_P(BudgetTest, GivesTheSameBits) {
  const absl::StatusOr<PackedModel> packed =
      PackedModel::Open(PackedForTest(kSource));
  ASSERT_TRUE(packed.ok()) << packed.status();
  const int32_t slots =
      std::max(1, packed->config().experts * GetParam() / 100);
  ModelOptions options = SmallOptions();
  options.memory.expert_bytes = ExpertBytesFor(*packed, slots);
  Decoder decoder(kSource, options);
  ASSERT_EQ(decoder.model().memory().slots[0], slots);
  ExpectSameBits(decoder.Feed(Prompt(), 256));
  decoder.Restart();
  ExpectSameBits(decoder.Feed(Prompt(), 1));
  if (slots < packed->config().experts) {
    EXPECT_GT(decoder.model().cache_snapshot().loads,
              static_cast<uint64_t>(slots));
  }
}

INSTANTIATE_TEST_SUITE_P(Percent, BudgetTest, testing::Values(10, 25, 50, 100));

// By seed: policy, prefetch, horizon, predictors, budget, disk rate, chunks,
// whose the slots are, and when experts are verified.
TEST(ModelBitsTest, EveryWayToKeepExpertsGivesTheSameBits) {
  constexpr uint64_t kSeeds = 24;
  const absl::StatusOr<PackedModel> packed =
      PackedModel::Open(PackedForTest(kSource));
  ASSERT_TRUE(packed.ok()) << packed.status();
  uint64_t loads = 0;
  double prefetched = 0;
  int uneven = 0;  // layers that have gained or lost slots
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const auto draw = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random);
    };
    ModelOptions options = SmallOptions();
    options.threads = draw(1, 2);
    options.policy = std::vector{"crf", "lru", "lfu"}[draw(0, 2)];
    options.prefetch = std::vector{"on", "auto", "off"}[draw(0, 2)];
    options.prefetch_horizon = draw(1, 4);
    options.io_limit = draw(0, 2) == 0 ? int64_t{400} << 20 : 0;
    options.memory.expert_bytes = ExpertBytesFor(*packed, draw(2, 31));
    // One more draw after the others, so that these stay as they were.
    const bool shared = draw(0, 1) == 1;
    if (shared) {
      options.expert_slots = "shared";
      options.layer_floor = draw(0, 2);
    }
    options.predictors =
        std::vector{"all", "router", "path,token", "popularity"}[draw(0, 3)];
    options.verify_experts = draw(0, 1) == 1 ? "once" : "always";
    Decoder decoder(kSource, options);
    ExpectSameBits(decoder.Feed(Prompt(), draw(0, 2) == 0 ? draw(2, 9) : 1));
    const CacheSnapshot snapshot = decoder.model().cache_snapshot();
    loads += snapshot.loads;
    prefetched += static_cast<double>(snapshot.decode.prefetched);
    for (const CacheSnapshot::Layer& layer : snapshot.layers) {
      uneven += layer.slots != decoder.model().memory().slots[0];
      EXPECT_TRUE(shared || layer.slots == decoder.model().memory().slots[0]);
    }
  }
  EXPECT_GT(loads, kSeeds * 100);
  EXPECT_GT(prefetched, 100);
  EXPECT_GT(uneven, 24);
}

TEST(ModelBitsTest, TwoThreadsGiveTheSameBits) {
  ModelOptions options = SmallOptions();
  options.threads = 2;
  Decoder decoder(kSource, options);
  ExpectSameBits(decoder.Feed(Prompt(), 256));
  decoder.Restart();
  ExpectSameBits(decoder.Feed(Prompt(), 1));
}

TEST(ModelBitsTest, EveryInstructionSetGivesTheSameBits) {
  for (const auto& [isa, name] : {std::pair{kernels::Isa::kOracle, "oracle"},
                                  std::pair{kernels::Isa::kAvx2, "avx2"},
                                  std::pair{kernels::Isa::kAvx512, "avx512"}}) {
    if (!kernels::IsSupported(isa)) {
      std::printf("this CPU lacks %s: not tested\n", name);
      continue;
    }
    ModelOptions options = SmallOptions();
    options.isa = name;
    Decoder decoder(kSource, options);
    ASSERT_EQ(decoder.model().isa(), name);
    ExpectSameBits(decoder.Feed(Prompt(), 256));
  }
}

TEST(ModelBitsTest, ChunksOfThePromptGiveTheSameBits) {
  Decoder decoder(kSource, SmallOptions());
  for (const int32_t chunk : {1, 7, 64}) {
    decoder.Restart();
    ExpectSameBits(decoder.Feed(Prompt(), chunk));
  }
}

// A prompt of more than one part of attention (kAttentionPart).
TEST(ModelBitsTest, EveryKvTypeGivesTheSameBitsInAnyChunks) {
  std::vector<int32_t> prompt;
  for (int i = 0; i < 5; ++i) {
    const std::vector<int32_t> part = Prompt();
    prompt.insert(prompt.end(), part.begin(), part.end());
  }
  for (const char* type : {"f32", "f16", "int8"}) {
    ModelOptions options = SmallOptions();
    options.context = 512;
    options.kv_type = type;
    const std::vector<float> wanted =
        Decoder(kSource, options).Feed(prompt, 256);
    options.threads = 2;
    for (const char* isa : {"oracle", "avx2", "avx512"}) {
      if (!kernels::ParseIsa(isa).ok()) continue;
      options.isa = isa;
      Decoder decoder(kSource, options);
      for (const int32_t chunk : {1, 100}) {
        if (chunk == 1 && options.isa == "oracle") continue;  // slow
        decoder.Restart();
        const std::vector<float> logits = decoder.Feed(prompt, chunk);
        ASSERT_EQ(logits.size(), wanted.size());
        EXPECT_EQ(std::memcmp(logits.data(), wanted.data(),
                              wanted.size() * sizeof(float)),
                  0)
            << type << ", " << isa << ", chunks of " << chunk;
      }
    }
  }
}

// Three sequences advance at different speeds in one batch; each must get the
// bits that it gets alone.
TEST(ModelBitsTest, ABatchGivesTheSameBits) {
  Decoder decoder(kSource, SmallOptions());
  Model& model = decoder.model();
  const std::vector<int32_t> prompt = Prompt();
  const int32_t length = static_cast<int32_t>(prompt.size());
  const int32_t blocks_each = (length + 15) / 16;
  ASSERT_EQ(model.kv_groups().size(), 1u);
  ASSERT_GE(model.kv_groups()[0].blocks, 3 * blocks_each);
  std::vector<KvTable> tables(3);
  for (int32_t b = 0; b < 3 * blocks_each; ++b) {
    tables[b % 3].blocks.push_back(b);
  }
  std::vector<std::vector<float>> logits(3);
  std::vector<int32_t> done(3, 0);
  const int32_t speeds[] = {1, 5, 16};
  while (done[0] < length) {
    std::vector<int32_t> ids;
    std::vector<SequenceRows> sequences;
    std::vector<int> who;
    for (int s = 0; s < 3; ++s) {
      const int32_t rows = std::min(speeds[s], length - done[s]);
      if (rows == 0) continue;
      sequences.push_back({.tables = {&tables[s], 1},
                           .first_row = static_cast<int32_t>(ids.size()),
                           .rows = rows,
                           .first_position = done[s]});
      ids.insert(ids.end(), prompt.begin() + done[s],
                 prompt.begin() + done[s] + rows);
      who.push_back(s);
      done[s] += rows;
    }
    std::vector<int32_t> wanted(ids.size());
    std::iota(wanted.begin(), wanted.end(), 0);
    const absl::StatusOr<ForwardResult> result =
        model.Forward({.ids = ids,
                       .sequences = sequences,
                       .logit_rows = wanted,
                       .phase = Phase::kPrefill});
    ASSERT_TRUE(result.ok()) << result.status();
    const int64_t vocab = model.config().vocab;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const auto first =
          result->logits.begin() + sequences[i].first_row * vocab;
      logits[who[i]].insert(logits[who[i]].end(), first,
                            first + sequences[i].rows * vocab);
    }
  }
  for (const std::vector<float>& one : logits) ExpectSameBits(one);
}

// The switches that the default model does not have: latent attention, sinks,
// windows, biases, block formats, layer norm, multipliers, two rotations.
class FamilyBitsTest : public testing::TestWithParam<const char*> {};

TEST_P(FamilyBitsTest, ChunksThreadsBudgetAndInstructionSetChangeNothing) {
  const std::string source = std::string("tests/golden/") + GetParam();
  std::vector<int32_t> prompt;
  for (const auto& part : LoadGolden(source).prompts) {
    prompt.insert(prompt.end(), part.begin(), part.end());
  }
  const std::vector<float> wanted =
      Decoder(source, SmallOptions()).Feed(prompt, 256);
  const absl::StatusOr<PackedModel> packed =
      PackedModel::Open(PackedForTest(source));
  ASSERT_TRUE(packed.ok()) << packed.status();
  for (const char* isa : {"oracle", "avx2", "avx512"}) {
    if (!kernels::ParseIsa(isa).ok()) continue;
    ModelOptions options = SmallOptions();
    options.isa = isa;
    options.threads = 2;
    options.memory.expert_bytes =
        ExpertBytesFor(*packed, packed->config().experts_per_token);
    Decoder decoder(source, options);
    for (const int32_t chunk : {1, 7, 256}) {
      decoder.Restart();
      const std::vector<float> logits = decoder.Feed(prompt, chunk);
      ASSERT_EQ(logits.size(), wanted.size());
      EXPECT_EQ(std::memcmp(logits.data(), wanted.data(),
                            wanted.size() * sizeof(float)),
                0)
          << isa << ", chunks of " << chunk;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyBitsTest,
                         testing::Values("deepseek_v2_group", "deepseek_v3",
                                         "ernie4_5_moe", "gpt_oss",
                                         "gpt_oss_mxfp4", "granitemoe",
                                         "longrope/llama", "longrope/phimoe",
                                         "phimoe"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, '/', '_');
                           return name;
                         });

// KV for one context of 4,096 tokens takes 32 MiB of the default model; the
// rest needs about 20.
TEST(ModelContextTest, IsHalvedToFitUnlessTheOperatorAskedForIt) {
  ModelOptions options = SmallOptions();
  options.context = 0;
  options.memory.total_bytes = int64_t{40} << 20;
  EXPECT_EQ(Decoder(kSource, options).model().context(), 2048);

  options.context = 4096;
  absl::StatusOr<PackedModel> packed =
      PackedModel::Open(PackedForTest(kSource));
  ASSERT_TRUE(packed.ok()) << packed.status();
  Metrics metrics;
  EXPECT_EQ(Model::Load(*std::move(packed), options, metrics).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace bullpen
