#include "tools/score_text.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/metrics.h"
#include "base/status.h"
#include "engine/model/tokenizer.h"
#include "tools/load_model.h"
#include "tools/progress.h"

namespace bullpen {
namespace {

constexpr int64_t kMaxTextBytes = int64_t{1} << 30;
constexpr int32_t kDefaultWindow = 512;

}  // namespace

absl::StatusOr<Perplexity> ScoreText(const TextScoring& scoring) {
  ASSIGN_OR_RETURN(const std::string text,
                   ReadFile(scoring.text, kMaxTextBytes));
  ASSIGN_OR_RETURN(const std::filesystem::path packed,
                   FindPacked(scoring.model, scoring.flags.cache_dir));
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                   Tokenizer::FromDirectory(packed));
  const std::vector<int32_t> ids =
      tokenizer->Encode(text, /*add_special=*/true);
  Metrics metrics;
  ASSIGN_OR_RETURN(const std::unique_ptr<Model> model,
                   LoadModel(packed, scoring.flags, metrics));
  if (scoring.importance != nullptr) {
    model->set_tap({.input = [&](const MatrixInput& input) {
      scoring.importance->Add(input);
    }});
  }
  const int32_t window = scoring.window != 0
                             ? scoring.window
                             : std::min(kDefaultWindow, model->context());
  Progress progress("scoring " + scoring.text.string(), Progress::Unit::kCount);
  return MeasurePerplexity(
      *model, ids,
      {.window = window, .progress = [&](int64_t done, int64_t total) {
         progress.Update(done, total);
       }});
}

}  // namespace bullpen
