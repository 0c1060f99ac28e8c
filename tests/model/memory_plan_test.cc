#include "engine/model/memory_plan.h"

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <string>

#include "engine/model/pack.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model/packed_weights.h"

namespace bullpen {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr int64_t kActivations = 1 << 20;
constexpr int64_t kLayerBlock = 8 << 10;  // of KV, in one of the 8 layers
constexpr int64_t kBlock = 8 * kLayerBlock;
constexpr KvLimits kLimits = {.context = 100, .step_rows = 16};  // 7 blocks
constexpr int64_t kBlob = 96 << 10;  // of the default model

class MemoryPlanTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    model_ = new PackedModel(
        PackAndOpen("models/default", ScratchPath("memory_plan")));
    ASSERT_EQ(model_->catalog().layers[0].blob_bytes, kBlob);
    ASSERT_EQ(model_->catalog().layers.size(), 8u);
  }
  static void TearDownTestSuite() { delete model_; }

  static absl::StatusOr<MemoryPlan> Plan(const MemoryBudget& budget,
                                         int32_t sequences = 4) {
    return PlanMemory(
        *model_, budget, kActivations,
        KvSizes(model_->config(), kLimits, sequences, kLayerBlock));
  }
  // What no plan can do without: 1 context, 2 slots a layer.
  static int64_t Least() {
    return model_->resident_bytes() + kActivations + 7 * kBlock + 16 * kBlob;
  }
  static int32_t Blocks(const MemoryPlan& plan) {
    EXPECT_EQ(plan.kv_groups.size(), 1u);
    return plan.kv_groups[0].blocks;
  }
  static int64_t Sum(const MemoryPlan& plan) {
    return plan.resident_bytes + plan.activation_bytes + plan.kv_bytes +
           plan.expert_bytes;
  }

  static PackedModel* model_;
};

PackedModel* MemoryPlanTest::model_ = nullptr;

TEST_F(MemoryPlanTest, TheMemoryOfOneNumaNodeIsALimit) {
  const int64_t node = Least() + (8 << 20);
  EXPECT_TRUE(Plan({.total_bytes = node, .node_bytes = node}).ok());
  const absl::Status above =
      Plan({.total_bytes = node + 1, .node_bytes = node}).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(above)) << above;
  const absl::Status parts =
      Plan({.kv_bytes = 16 << 20, .expert_bytes = node, .node_bytes = node})
          .status();
  EXPECT_TRUE(absl::IsFailedPrecondition(parts)) << parts;
  // The default is a share of the node's, however much the machine has.
  const auto plan = Plan({.node_bytes = 2 * node});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_LE(Sum(*plan), 2 * node * 8 / 10);
}

TEST_F(MemoryPlanTest, StaysWithinEveryBudgetAndUsesIt) {
  int64_t last = 0;
  for (int64_t total = Least(); total < Least() + (40 << 20);
       total += 777'777) {
    const auto plan = Plan({.total_bytes = total});
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_LE(Sum(*plan), total);
    EXPECT_GE(Blocks(*plan), 7);
    EXPECT_LE(Blocks(*plan), 4 * 7);
    EXPECT_EQ(plan->kv_bytes, Blocks(*plan) * kBlock);
    const auto [few, many] =
        std::minmax_element(plan->slots.begin(), plan->slots.end());
    EXPECT_GE(*few, 2);
    EXPECT_LE(*many - *few, 1) << "slots are dealt evenly";
    EXPECT_EQ(
        plan->expert_bytes,
        std::accumulate(plan->slots.begin(), plan->slots.end(), int64_t{0}) *
            kBlob);
    EXPECT_GE(plan->expert_bytes, last) << "more memory, never fewer experts";
    last = plan->expert_bytes;
    const bool all = *few == 32 && Blocks(*plan) == 28;
    EXPECT_TRUE(all || total - Sum(*plan) < kBlob + kBlock)
        << total - Sum(*plan) << " bytes of " << total << " are not used";
  }
}

TEST_F(MemoryPlanTest, EnoughForAllHoldsAll) {
  const auto plan = Plan({.total_bytes = int64_t{1} << 30});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->slots, Each(32));
  EXPECT_EQ(Blocks(*plan), 28);
}

TEST_F(MemoryPlanTest, OneByteTooLittleIsRefusedWithTheTable) {
  EXPECT_TRUE(Plan({.total_bytes = Least()}).ok());
  const absl::Status status = Plan({.total_bytes = Least() - 1}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(
      std::string(status.message()),
      AllOf(HasSubstr("a memory budget of"), HasSubstr("resident weights"),
            HasSubstr("7.15 MiB"),
            HasSubstr("KV cache (7 blocks of 16 tokens)"),
            HasSubstr("experts (16 slots in 8 layers)"), HasSubstr("total")));
}

TEST_F(MemoryPlanTest, PartsSetByHandAreKept) {
  const auto experts = Plan({.expert_bytes = 64 * kBlob});
  ASSERT_TRUE(experts.ok()) << experts.status();
  EXPECT_THAT(experts->slots, Each(8));
  EXPECT_EQ(Blocks(*experts), 28);

  const auto kv =
      Plan({.total_bytes = int64_t{1} << 30, .kv_bytes = 9 * kBlock});
  ASSERT_TRUE(kv.ok()) << kv.status();
  EXPECT_EQ(Blocks(*kv), 9);
  EXPECT_THAT(kv->slots, Each(32));

  const auto both = Plan({.kv_bytes = 8 * kBlock, .expert_bytes = 24 * kBlob});
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_EQ(Blocks(*both), 8);
  EXPECT_THAT(both->slots, Each(3));

  // More than all sequences together can fill.
  const auto more = Plan({.kv_bytes = 30 * kBlock, .expert_bytes = 24 * kBlob});
  ASSERT_TRUE(more.ok()) << more.status();
  EXPECT_EQ(Blocks(*more), 30);
}

TEST_F(MemoryPlanTest, PartsSetByHandBelowTheLeastAreRefused) {
  const absl::Status kv = Plan({.kv_bytes = 7 * kBlock - 1}).status();
  EXPECT_EQ(kv.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(kv.message()),
              HasSubstr("KV memory for one whole context of"));
  const absl::Status experts = Plan({.expert_bytes = 16 * kBlob - 1}).status();
  EXPECT_EQ(experts.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(experts.message()), HasSubstr("expert memory of"));
}

TEST_F(MemoryPlanTest, ARefusalShowsThePartsThatWereSetByHand) {
  const absl::Status status = Plan({.total_bytes = Least(),
                                    .kv_bytes = 9 * kBlock,
                                    .expert_bytes = 24 * kBlob})
                                  .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("KV cache (9 blocks of 16 tokens)"),
                    HasSubstr("experts (24 slots in 8 layers)")));
}

TEST_F(MemoryPlanTest, NoBudgetTakesFromWhatTheMachineHas) {
  const auto plan = Plan({});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->slots, Each(32)) << "needs 40 MiB of free memory";
}

TEST_F(MemoryPlanTest, WindowedLayersTakeTheirShareOfEveryBudget) {
  ModelConfig config;
  config.layers = {{.window = 20}, {}, {.window = 20}, {}, {.window = 20}};
  const KvSizes kv(config, {.context = 1600, .step_rows = 16}, 2, kLayerBlock);
  const auto plan = [&](const MemoryBudget& budget) {
    return PlanMemory(*model_, budget, kActivations, kv);
  };
  // 100 blocks of the two layers without a window; of the others, three hold
  // the 20 keys that a row of one sequence sees, and four those of a step.
  const int64_t least = (2 * 100 + 3 * 7) * kLayerBlock;
  const auto by_hand = plan({.kv_bytes = least + 4 * kLayerBlock});
  ASSERT_TRUE(by_hand.ok()) << by_hand.status();
  EXPECT_EQ(by_hand->kv_groups[0].blocks, 7);
  EXPECT_EQ(by_hand->kv_groups[1].blocks, 102);
  EXPECT_EQ(by_hand->kv_bytes, least + 4 * kLayerBlock);
  EXPECT_THAT(by_hand->Table(),
              HasSubstr("KV cache (7 + 102 blocks of 16 tokens)"));
  EXPECT_FALSE(plan({.kv_bytes = least - 1}).ok());

  const auto all = plan({.total_bytes = int64_t{1} << 30});
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->kv_groups[0].blocks, 7);
  EXPECT_EQ(all->kv_groups[1].blocks, 200);
  EXPECT_EQ(all->kv_bytes, (3 * 7 + 2 * 200) * kLayerBlock);
}

TEST_F(MemoryPlanTest, DenseLayersHaveOneSlot) {
  const PackedModel dense =
      PackAndOpen("tests/golden/qwen3", ScratchPath("memory_plan_dense"));
  const auto plan = PlanMemory(dense, {.total_bytes = 64 << 20}, kActivations,
                               KvSizes(dense.config(), kLimits, 1, 1 << 10));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->slots, Each(1));
}

}  // namespace
}  // namespace bullpen
