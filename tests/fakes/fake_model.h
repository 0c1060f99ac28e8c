#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "engine/model/model.h"

namespace bullpen {

struct FakeModelConfig {
  int32_t vocab = 64;
  int32_t context = 256;
  int32_t max_batch_tokens = 256;
  std::vector<KvGroup> kv_groups = {{.blocks = 64}};
  int32_t eos = -1;  // the likeliest from position eos_after on, never before
  int32_t eos_after = 0;
  int32_t poison_token = -1;  // a sequence that feeds it gets DataLoss
  int32_t nan_token = -1;     // the logits after it are NaN
};

// A test's hand on a fake model, which it must outlive. Any thread.
class FakeModelControl {
 public:
  // The next Forward fails as a whole.
  void FailNextForward(absl::Status status);
  // From now on Forward waits at its start, until Release.
  void Hold();
  void Release();
  // Waits until a Forward stands at the gate.
  void AwaitHeld();
  // Lets exactly one held Forward pass and waits for the next one at the gate.
  void StepOnce();

  int64_t forwards() const;
  int32_t max_rows() const;       // of one Forward
  int32_t max_sequences() const;  // of one Forward

  // The fake's: counts the batch, waits at the gate.
  absl::Status Enter(const ForwardBatch& batch);

 private:
  mutable absl::Mutex mutex_;
  absl::CondVar changed_;
  absl::Status fail_next_ ABSL_GUARDED_BY(mutex_);
  bool hold_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t passes_ ABSL_GUARDED_BY(mutex_) = 0;  // allowed through while held
  int64_t entered_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t passed_ ABSL_GUARDED_BY(mutex_) = 0;
  int32_t max_rows_ ABSL_GUARDED_BY(mutex_) = 0;
  int32_t max_sequences_ ABSL_GUARDED_BY(mutex_) = 0;
};

// A Model (by substitution at link time: fake_model.cc defines its members)
// whose logits are a hash of the tokens and positions that a row sees in each
// group, read back through the KV blocks it is given. A wrong block, a wrong
// position or a recomputation left out changes them.
std::unique_ptr<Model> MakeFakeModel(const FakeModelConfig& config,
                                     FakeModelControl& control);

}  // namespace bullpen
