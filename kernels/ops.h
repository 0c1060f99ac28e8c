#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/attention.h"
#include "kernels/combine.h"
#include "kernels/embed.h"
#include "kernels/grouped_ffn.h"
#include "kernels/kv_write.h"
#include "kernels/layer_norm.h"
#include "kernels/matmul.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/route.h"

namespace bullpen {
class WorkerPool;
}

namespace bullpen::kernels {

// Where ops run. On the CPU: the worker pool, and an op has finished when it
// returns. A device plugin will carry its queue here.
struct Stream {
  WorkerPool* pool = nullptr;
};

// The one op table. An instruction set or a device fills one; the engine calls
// through it and knows nothing else. All tables give the same bits: the oracle
// (kernels/*_cpu.cc, plain loops) defines them. An op never allocates on the
// hot path beyond its caller's scratch. Called by the engine thread only.
struct Ops {
  std::string_view name;  // "oracle", "avx2", "avx512"
  absl::Status (*embed)(const EmbedArgs&, Stream&);
  absl::Status (*matmul)(const MatMulArgs&, Stream&);
  absl::Status (*rms_norm)(const RmsNormArgs&, Stream&);
  absl::Status (*layer_norm)(const LayerNormArgs&, Stream&);
  absl::Status (*rope)(const RopeArgs&, Stream&);
  absl::Status (*kv_write)(const KvWriteArgs&, Stream&);
  absl::Status (*attention)(const AttentionArgs&, Stream&);
  absl::Status (*route)(const RouteArgs&, Stream&);
  absl::Status (*grouped_ffn)(const GroupedFfnArgs&, Stream&);
  absl::Status (*combine)(const CombineArgs&, Stream&);
};

enum class Isa { kOracle, kAvx2, kAvx512 };

// What this CPU can run, best last. The oracle always can.
bool IsSupported(Isa isa);
Isa BestIsa();
const Ops& CpuOps(Isa isa);  // CHECKs IsSupported.

// "auto", "oracle", "avx2", "avx512". InvalidArgument lists the choices;
// FailedPrecondition if this CPU lacks it.
absl::StatusOr<Isa> ParseIsa(std::string_view name);

}  // namespace bullpen::kernels
