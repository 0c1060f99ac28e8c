#pragma once

#include "absl/status/status.h"
#include "kernels/ops.h"

// The oracle: each op in plain loops, one thread, no vector code. It defines
// the result of the op to the bit (the payload of a NaN excepted).
namespace bullpen::kernels::oracle {

absl::Status Embed(const EmbedArgs& args, Stream& stream);
absl::Status MatMul(const MatMulArgs& args, Stream& stream);
absl::Status RmsNorm(const RmsNormArgs& args, Stream& stream);
absl::Status LayerNorm(const LayerNormArgs& args, Stream& stream);
absl::Status Rope(const RopeArgs& args, Stream& stream);
absl::Status KvWrite(const KvWriteArgs& args, Stream& stream);
absl::Status Attention(const AttentionArgs& args, Stream& stream);
absl::Status Route(const RouteArgs& args, Stream& stream);
absl::Status GroupedFfn(const GroupedFfnArgs& args, Stream& stream);
absl::Status Combine(const CombineArgs& args, Stream& stream);

}  // namespace bullpen::kernels::oracle
