#include "kernels/element.h"
#include "kernels/oracle.h"

namespace bullpen::kernels::oracle {

absl::Status KvWrite(const KvWriteArgs& args, Stream&) {
  const KvLayer& layer = args.layer;
  for (int32_t s = 0; s < args.sequence_count; ++s) {
    const KvSequence& sequence = args.sequences[s];
    for (int64_t i = 0; i < sequence.rows; ++i) {
      const int64_t row = sequence.first_row + i;
      const int64_t position = sequence.first_position + i;
      const int64_t lane = position % kKvBlockTokens;
      std::byte* block = KvBlock(layer, sequence, position);
      for (int64_t head = 0; head < layer.kv_heads; ++head) {
        std::byte* keys = block + KvKeyOffset(layer, head);
        const float* k = args.k + row * args.k_stride + head * layer.k_dim;
        for (int64_t d = 0; d < layer.k_dim; ++d) {
          StoreElement(layer.dtype, keys, d * kKvBlockTokens + lane, k[d]);
        }
        std::byte* values = block + KvValueOffset(layer, head);
        const float* v = args.v + row * args.v_stride + head * layer.v_dim;
        for (int64_t d = 0; d < layer.v_dim; ++d) {
          StoreElement(layer.dtype, values, lane * layer.v_dim + d, v[d]);
        }
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace bullpen::kernels::oracle
