#include "tools/perplexity.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/status.h"
#include "base/strings.h"

namespace bullpen {
namespace {

// -log of the probability that softmax(logits) gives `target`.
double NegativeLogLikelihood(std::span<const float> logits, int32_t target) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - highest);
  return std::log(sum) + highest - logits[static_cast<size_t>(target)];
}

absl::Status CheckInput(const Model& model, std::span<const int32_t> ids,
                        int32_t window) {
  if (window < 2 || window > model.context()) {
    return absl::InvalidArgumentError(
        absl::StrCat("window ", window, " must be at least 2 and at most ",
                     model.context(), ", the context"));
  }
  if (ids.size() < 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the text has ", ids.size(), " tokens; two are the least to score"));
  }
  const int32_t vocab = model.config().vocab;
  for (const int32_t id : ids) {
    if (id >= 0 && id < vocab) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "token id ", id, " is not in the model's vocabulary of ", vocab));
  }
  return absl::OkStatus();
}

// Scores one text after the other with the KV blocks of one sequence.
class Scorer {
 public:
  explicit Scorer(Model& model)
      : model_(model),
        tables_(FixedKvTables(model.kv_groups(), model.kv_limits(), 0)) {}

  // Adds the scores of all tokens of a window but the first.
  absl::Status Score(std::span<const int32_t> window, double& nll) {
    const size_t step = static_cast<size_t>(model_.max_batch_tokens());
    // The last token foresees nothing that is known.
    const size_t rows = window.size() - 1;
    for (size_t first = 0; first < rows; first += step) {
      const size_t count = std::min(step, rows - first);
      RETURN_IF_ERROR(Step(window, first, count, nll));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Step(std::span<const int32_t> window, size_t first, size_t count,
                    double& nll) {
    rows_.resize(count);
    std::iota(rows_.begin(), rows_.end(), 0);
    const SequenceRows sequence{.tables = tables_,
                                .rows = static_cast<int32_t>(count),
                                .first_position = static_cast<int32_t>(first),
                                .prompt = static_cast<int32_t>(window.size())};
    ASSIGN_OR_RETURN(const ForwardResult result,
                     model_.Forward({.ids = window.subspan(first, count),
                                     .sequences = {&sequence, 1},
                                     .logit_rows = rows_,
                                     .phase = Phase::kPrefill}));
    RETURN_IF_ERROR(result.sequence_status[0]);
    const size_t vocab = static_cast<size_t>(model_.config().vocab);
    for (size_t row = 0; row < count; ++row) {
      nll += NegativeLogLikelihood(result.logits.subspan(row * vocab, vocab),
                                   window[first + row + 1]);
    }
    return absl::OkStatus();
  }

  Model& model_;
  std::vector<KvTable> tables_;
  std::vector<int32_t> rows_;
};

}  // namespace

double Perplexity::value() const { return std::exp(mean_nll); }

absl::StatusOr<Perplexity> MeasurePerplexity(Model& model,
                                             std::span<const int32_t> ids,
                                             const PerplexityOptions& options) {
  RETURN_IF_ERROR(CheckInput(model, ids, options.window));
  const size_t window = static_cast<size_t>(options.window);
  const auto total = static_cast<int64_t>(ids.size());
  Scorer scorer(model);
  Perplexity result;
  double nll = 0;
  const auto start = std::chrono::steady_clock::now();
  for (size_t begin = 0; begin + 1 < ids.size(); begin += window) {
    const std::span<const int32_t> part =
        ids.subspan(begin, std::min(window, ids.size() - begin));
    RETURN_IF_ERROR(scorer.Score(part, nll));
    result.scored += static_cast<int64_t>(part.size()) - 1;
    ++result.windows;
    if (options.progress) {
      options.progress(static_cast<int64_t>(begin + part.size()), total);
    }
  }
  const std::chrono::duration<double> seconds =
      std::chrono::steady_clock::now() - start;
  result.seconds = seconds.count();
  result.mean_nll = nll / static_cast<double>(result.scored);
  return result;
}

}  // namespace bullpen
