#include "tools/perplexity.h"

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fakes/decoder.h"
#include "tests/fakes/golden.h"

namespace bullpen {
namespace {

// Of all tokens of `ids` but the first.
double MeanNll(const std::vector<int32_t>& ids, const Golden::Tensor& logits) {
  const size_t vocab = static_cast<size_t>(logits.shape[1]);
  double nll = 0;
  for (size_t row = 0; row + 1 < ids.size(); ++row) {
    const float* of_row = logits.f32.data() + row * vocab;
    double sum = 0;
    for (size_t id = 0; id < vocab; ++id) sum += std::exp(of_row[id]);
    nll += std::log(sum) - of_row[ids[row + 1]];
  }
  return nll / static_cast<double>(ids.size() - 1);
}

// The rotation of these models depends on the length of the window.
TEST(PerplexityTest, IsThatOfTransformersOverTheWindowInAnyChunks) {
  for (const char* source :
       {"tests/golden/longrope/llama", "tests/golden/longrope/phimoe"}) {
    const Golden golden = LoadGolden(source);
    for (const int32_t chunk : {5, 256}) {
      ModelOptions options = WithActivations("f32");
      options.max_batch_tokens = chunk;
      Decoder decoder(source, options);
      for (size_t p = 0; p < golden.prompts.size(); ++p) {
        const std::vector<int32_t>& prompt = golden.prompts[p];
        const absl::StatusOr<Perplexity> found = MeasurePerplexity(
            decoder.model(), prompt,
            {.window = static_cast<int32_t>(prompt.size()), .progress = {}});
        ASSERT_TRUE(found.ok()) << found.status();
        EXPECT_NEAR(
            found->mean_nll,
            MeanNll(prompt, golden.tensors.at("logits." + std::to_string(p))),
            1e-4)
            << source << ", prompt " << p << ", chunks of " << chunk;
      }
    }
  }
}

}  // namespace
}  // namespace bullpen
