#include "bench/engine/model_run.h"

#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/softmax.h"

namespace bullpen::bench {
namespace {

using kernels::kKvBlockTokens;
using kernels::KvSequence;

// Sequences that advance in step, each with its own KV blocks.
class Lockstep {
 public:
  Lockstep(Model& model, const Workload& workload)
      : model_(model), workload_(workload) {
    const int32_t tokens = workload.prompt_tokens + workload.decode_tokens;
    const int32_t blocks = (tokens + kKvBlockTokens - 1) / kKvBlockTokens;
    tables_.resize(workload.batch);
    for (int32_t s = 0; s < workload.batch; ++s) {
      tables_[s].resize(blocks);
      std::iota(tables_[s].begin(), tables_[s].end(), s * blocks);
    }
    next_.resize(workload.batch);
  }

  int32_t blocks() const {
    return static_cast<int32_t>(tables_.size() * tables_[0].size());
  }

  absl::StatusOr<Steps> Run() {
    Steps steps;
    steps.begin = Clock::now();
    for (int32_t s = 0; s < workload_.batch; ++s) {
      const std::vector<int32_t> prompt =
          PromptIds(workload_, s, model_.config().vocab);
      RETURN_IF_ERROR(Prefill(s, prompt));
      steps.tokens.push_back(Clock::now());
    }
    for (int32_t step = 1; step < workload_.decode_tokens; ++step) {
      RETURN_IF_ERROR(Decode(workload_.prompt_tokens + step - 1));
      steps.tokens.insert(steps.tokens.end(), workload_.batch, Clock::now());
    }
    return steps;
  }

 private:
  absl::Status Prefill(int32_t s, const std::vector<int32_t>& prompt) {
    const KvSequence sequence{.blocks = tables_[s].data(),
                              .rows = workload_.prompt_tokens};
    const int32_t last = workload_.prompt_tokens - 1;
    ASSIGN_OR_RETURN(const ForwardResult result,
                     model_.Forward({.ids = prompt,
                                     .sequences = {&sequence, 1},
                                     .logit_rows = {&last, 1},
                                     .phase = Phase::kPrefill}));
    next_[s] = ArgMax(result.logits);
    return absl::OkStatus();
  }

  absl::Status Decode(int32_t position) {
    sequences_.clear();
    rows_.resize(next_.size());
    std::iota(rows_.begin(), rows_.end(), 0);
    for (int32_t s = 0; s < workload_.batch; ++s) {
      sequences_.push_back({.blocks = tables_[s].data(),
                            .first_row = s,
                            .rows = 1,
                            .first_position = position});
    }
    ASSIGN_OR_RETURN(const ForwardResult result,
                     model_.Forward({.ids = next_,
                                     .sequences = sequences_,
                                     .logit_rows = rows_,
                                     .phase = Phase::kDecode}));
    const size_t vocab = static_cast<size_t>(model_.config().vocab);
    for (size_t s = 0; s < next_.size(); ++s) {
      next_[s] = ArgMax(result.logits.subspan(s * vocab, vocab));
    }
    return absl::OkStatus();
  }

  Model& model_;
  Workload workload_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<int32_t> next_;
  std::vector<int32_t> rows_;
  std::vector<KvSequence> sequences_;
};

}  // namespace

absl::StatusOr<Best> RunModel(Model& model, const Workload& workload) {
  Lockstep lockstep(model, workload);
  if (lockstep.blocks() > model.kv_blocks()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("batch ", workload.batch, " needs ", lockstep.blocks(),
                     " KV blocks; the model has ", model.kv_blocks()));
  }
  std::vector<Steps> repeats;
  for (int32_t i = 0; i < workload.repeats; ++i) {
    ASSIGN_OR_RETURN(Steps steps, lockstep.Run());
    repeats.push_back(std::move(steps));
  }
  return BestOf(repeats, workload.batch);
}

}  // namespace bullpen::bench
