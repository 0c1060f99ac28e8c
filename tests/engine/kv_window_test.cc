// A real model over the blocks that the pool gives it: those that have left the
// window of their layers go to other sequences, and come back full of NaN.

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "engine/kv_pool.h"
#include "gtest/gtest.h"
#include "tests/fakes/checkpoint_writer.h"
#include "tests/fakes/decoder.h"
#include "tests/fakes/golden.h"

namespace bullpen {
namespace {

constexpr int32_t kContext = 256;
constexpr int32_t kPoison = 7;  // the token whose embedding is NaN

// The golden checkpoint with an embedding of NaN for kPoison: all keys and
// values of a sequence of it are NaN.
std::filesystem::path PoisonedCopy(const std::string& name) {
  const std::filesystem::path source = "tests/golden/" + name;
  const std::filesystem::path copy = ScratchPath("poisoned/" + name);
  std::filesystem::create_directories(copy);
  std::filesystem::copy_file(source / "config.json", copy / "config.json",
                             std::filesystem::copy_options::overwrite_existing);
  std::vector<FakeTensor> tensors = ReadTensors(source / "model.safetensors");
  for (FakeTensor& tensor : tensors) {
    if (tensor.name != "model.embed_tokens.weight") continue;
    EXPECT_EQ(tensor.dtype, "BF16");
    const size_t row_bytes = static_cast<size_t>(tensor.shape[1]) * 2;
    std::fill_n(tensor.bytes.begin() + kPoison * row_bytes, row_bytes, '\x7f');
  }
  WriteTensors(copy / "model.safetensors", tensors);
  return copy;
}

// Several windows long, without the poison.
std::vector<int32_t> LongPrompt(const std::string& name) {
  std::vector<int32_t> prompt;
  while (prompt.size() < 200) {
    for (const auto& part : LoadGolden("tests/golden/" + name).prompts) {
      prompt.insert(prompt.end(), part.begin(), part.end());
    }
  }
  prompt.resize(200);
  std::ranges::replace(prompt, kPoison, kPoison + 1);
  return prompt;
}

ModelOptions Options(int32_t step_rows) {
  ModelOptions options;
  options.threads = 2;
  options.context = kContext;
  options.max_sequences = 2;
  options.max_batch_tokens = step_rows;
  return options;
}

// One sequence that computes its prompt; between its steps another one takes
// all blocks that are free, and leaves NaN in them.
class WindowedRun {
 public:
  WindowedRun(const std::filesystem::path& source, int32_t step_rows)
      : decoder_(source, Options(step_rows)),
        model_(decoder_.model()),
        step_rows_(step_rows),
        pool_(model_.kv_groups(), step_rows) {}

  // Logits of every row.
  std::vector<float> Feed(const std::vector<int32_t>& prompt) {
    std::vector<float> logits;
    const int32_t count = static_cast<int32_t>(prompt.size());
    PoisonFree();
    for (int32_t at = 0; at < count; at += step_rows_) {
      const int32_t end = std::min(at + step_rows_, count);
      Step(tables_, at, {prompt.data() + at, prompt.data() + end}, &logits);
      const int32_t free = pool_.free_blocks();
      pool_.FreePassed(tables_, end);
      CheckHeld();
      if (pool_.free_blocks() > free) PoisonFree();
    }
    pool_.FreeAll(tables_);
    EXPECT_EQ(pool_.free_blocks(), pool_.blocks());
    EXPECT_GT(poisoned_, 0);
    return logits;
  }

  Model& model() { return model_; }

 private:
  void PoisonFree() {
    std::vector<KvTable> tables;
    int32_t rows = 0;
    while (rows < kContext && pool_.Extend(tables, rows + 1)) ++rows;
    const std::vector<int32_t> ids(static_cast<size_t>(step_rows_), kPoison);
    for (int32_t at = 0; at < rows; at += step_rows_) {
      const int32_t chunk = std::min(step_rows_, rows - at);
      Step(tables, at, std::span(ids).first(static_cast<size_t>(chunk)),
           nullptr);
    }
    pool_.FreeAll(tables);
    poisoned_ += rows;
  }

  void Step(std::vector<KvTable>& tables, int32_t at,
            std::span<const int32_t> ids, std::vector<float>* logits) {
    const int32_t rows = static_cast<int32_t>(ids.size());
    ASSERT_TRUE(pool_.Extend(tables, at + rows));
    const SequenceRows sequence{
        .tables = tables, .rows = rows, .first_position = at};
    std::vector<int32_t> wanted(logits == nullptr ? 0 : ids.size());
    std::iota(wanted.begin(), wanted.end(), 0);
    const absl::StatusOr<ForwardResult> result = model_.Forward(
        {.ids = ids, .sequences = {&sequence, 1}, .logit_rows = wanted});
    ASSERT_TRUE(result.ok()) << result.status();
    if (logits == nullptr) return;
    logits->insert(logits->end(), result->logits.begin(), result->logits.end());
  }

  void CheckHeld() {
    for (size_t g = 0; g < tables_.size(); ++g) {
      EXPECT_LE(static_cast<int32_t>(tables_[g].blocks.size()) -
                    tables_[g].given_back,
                KvBlocksNeeded(model_.kv_groups()[g].window,
                               {.context = kContext, .step_rows = step_rows_}));
    }
  }

  Decoder decoder_;
  Model& model_;
  int32_t step_rows_;
  KvPool pool_;
  std::vector<KvTable> tables_;
  int64_t poisoned_ = 0;  // rows
};

class KvWindowTest : public testing::TestWithParam<const char*> {};

TEST_P(KvWindowTest, RecycledBlocksGiveTheSameBitsInAnyChunks) {
  const std::filesystem::path source = PoisonedCopy(GetParam());
  const std::vector<int32_t> prompt = LongPrompt(GetParam());
  Decoder decoder(source, Options(kContext));
  const std::vector<float> wanted = decoder.Feed(prompt, kContext);
  const size_t vocab = static_cast<size_t>(decoder.model().config().vocab);
  for (const int32_t step_rows : {1, 7, 64}) {
    SCOPED_TRACE(testing::Message() << "chunks of " << step_rows);
    WindowedRun run(source, step_rows);
    const std::vector<float> logits = run.Feed(prompt);
    ASSERT_EQ(logits.size(), wanted.size());
    for (size_t i = 0; i < logits.size(); ++i) {
      // Where the embedding is the head too, it has a logit of NaN.
      if (i % vocab == kPoison) continue;
      ASSERT_EQ(logits[i], wanted[i])
          << "row " << i / vocab << ", token " << i % vocab;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, KvWindowTest,
                         testing::Values("gpt_oss", "gpt_oss_mxfp4",
                                         "odd/mixtral"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, '/', '_');
                           return name;
                         });

TEST(KvWindowMemoryTest, OfAWindowedLayerIsThatOfItsWindow) {
  WindowedRun run("tests/golden/gpt_oss", 16);
  const auto groups = run.model().kv_groups();
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0].window, 16);
  EXPECT_EQ(groups[0].layers, 2);
  EXPECT_EQ(groups[0].blocks, 2 * 3);
  EXPECT_EQ(groups[1].window, 0);
  EXPECT_EQ(groups[1].layers, 2);
  EXPECT_EQ(groups[1].blocks, 2 * kContext / 16);
}

}  // namespace
}  // namespace bullpen
