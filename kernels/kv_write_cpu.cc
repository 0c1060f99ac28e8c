#include <cmath>
#include <cstring>

#include "kernels/kv_element.h"
#include "kernels/oracle.h"

namespace bullpen::kernels::oracle {
namespace {

// Where one token's key or value of one head goes.
struct Place {
  KvType type;
  std::byte* base;   // of the head's elements in the block
  int64_t position;  // of the token
  int64_t first;     // index of element 0
  int64_t step;      // between elements
};

void Store(const float* x, int64_t count, const Place& place) {
  if (place.type == KvType::kInt8) {
    float largest = 0;
    for (int64_t i = 0; i < count; ++i) {
      // A NaN stays, whatever follows.
      if (!(std::fabs(x[i]) <= largest) && largest == largest) {
        largest = std::fabs(x[i]);
      }
    }
    const KvScale scale = KvScaleOf(largest);
    std::memcpy(place.base - KvScaleBytes(place.type) +
                    place.position % kKvBlockTokens * sizeof(float),
                &scale.scale, sizeof(float));
    for (int64_t i = 0; i < count; ++i) {
      place.base[place.first + i * place.step] =
          static_cast<std::byte>(KvCode(x[i], scale.inverse));
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const int64_t index = place.first + i * place.step;
    if (place.type == KvType::kF32) {
      reinterpret_cast<float*>(place.base)[index] = x[i];
    } else {
      reinterpret_cast<uint16_t*>(place.base)[index] =
          FromFloat(x[i], DType::kF16);
    }
  }
}

}  // namespace

absl::Status KvWrite(const KvWriteArgs& args, Stream&) {
  const KvLayer& layer = args.layer;
  for (int32_t s = 0; s < args.sequence_count; ++s) {
    const KvSequence& sequence = args.sequences[s];
    for (int64_t i = 0; i < sequence.rows; ++i) {
      const int64_t row = sequence.first_row + i;
      const int64_t position = sequence.first_position + i;
      const int64_t lane = position % kKvBlockTokens;
      const int32_t block = sequence.blocks[position / kKvBlockTokens];
      for (int64_t head = 0; head < layer.kv_heads; ++head) {
        Store(args.k + row * args.k_stride + head * layer.k_dim, layer.k_dim,
              {.type = layer.type,
               .base = layer.keys(block, head),
               .position = position,
               .first = lane,
               .step = kKvBlockTokens});
        if (layer.value_in_key) continue;
        Store(args.v + row * args.v_stride + head * layer.v_dim, layer.v_dim,
              {.type = layer.type,
               .base = layer.values(block, head),
               .position = position,
               .first = lane * layer.v_dim,
               .step = 1});
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace bullpen::kernels::oracle
