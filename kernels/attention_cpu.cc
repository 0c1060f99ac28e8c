#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/element.h"
#include "kernels/exp.h"
#include "kernels/oracle.h"

namespace bullpen::kernels::oracle {
namespace {

// One query of one sequence: its keys are the positions first..last.
struct Query {
  const float* q = nullptr;  // [k_dim]
  float* out = nullptr;      // [v_dim]
  int64_t kv_head = 0;
  int64_t first = 0;
  int64_t last = 0;
  const float* sink = nullptr;
};

void Attend(const AttentionArgs& args, const KvSequence& sequence,
            const Query& query) {
  const KvLayer& layer = args.layer;
  const auto score = [&](int64_t j) -> float& {
    return args.scratch[j - query.first];
  };
  float m = query.sink != nullptr ? *query.sink
                                  : -std::numeric_limits<float>::infinity();
  for (int64_t j = query.first; j <= query.last; ++j) {
    const std::byte* keys =
        KvBlock(layer, sequence, j) + KvKeyOffset(layer, query.kv_head);
    float sum = 0.0f;
    for (int64_t d = 0; d < layer.k_dim; ++d) {
      const float key = LoadElement(layer.dtype, keys,
                                    d * kKvBlockTokens + j % kKvBlockTokens);
      sum = std::fma(query.q[d], key, sum);
    }
    score(j) = args.scale * sum;
    m = std::max(m, score(j));
  }
  float partial[kKvBlockTokens] = {};
  for (int64_t j = query.first; j <= query.last; ++j) {
    score(j) = Exp(score(j) - m);
    partial[j % kKvBlockTokens] += score(j);
  }
  for (int half = kKvBlockTokens / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) partial[i] += partial[i + half];
  }
  float z = partial[0];
  if (query.sink != nullptr) z += Exp(*query.sink - m);
  for (int64_t d = 0; d < layer.v_dim; ++d) {
    float sum = 0.0f;
    for (int64_t j = query.first; j <= query.last; ++j) {
      const std::byte* values =
          KvBlock(layer, sequence, j) + KvValueOffset(layer, query.kv_head);
      const float value = LoadElement(layer.dtype, values,
                                      j % kKvBlockTokens * layer.v_dim + d);
      sum = std::fma(score(j), value, sum);
    }
    query.out[d] = sum / z;
  }
}

}  // namespace

absl::Status Attention(const AttentionArgs& args, Stream&) {
  const int64_t group = args.heads / args.layer.kv_heads;
  for (int32_t s = 0; s < args.sequence_count; ++s) {
    const KvSequence& sequence = args.sequences[s];
    for (int64_t i = 0; i < sequence.rows; ++i) {
      const int64_t row = sequence.first_row + i;
      const int64_t position = sequence.first_position + i;
      for (int64_t head = 0; head < args.heads; ++head) {
        Attend(
            args, sequence,
            {.q = args.q + row * args.q_stride + head * args.layer.k_dim,
             .out = args.out + row * args.out_stride + head * args.layer.v_dim,
             .kv_head = head / group,
             .first = FirstKey(args, position),
             .last = position,
             .sink = args.sinks != nullptr ? args.sinks + head : nullptr});
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace bullpen::kernels::oracle
