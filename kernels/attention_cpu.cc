#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/exp.h"
#include "kernels/kv_element.h"
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

// m' and z' of a part; a' is in the scratch.
struct Part {
  float m = std::numeric_limits<float>::lowest();
  float z = 0;
};

class Attending {
 public:
  Attending(const AttentionArgs& args, const KvSequence& sequence,
            const Query& query)
      : args_(args),
        layer_(args.layer),
        sequence_(sequence),
        query_(query),
        weights_(args.scratch),
        sums_(args.scratch + kAttentionPart) {}

  void Run();

 private:
  Part AttendPart(int64_t begin, int64_t end);
  void AddValues(int64_t begin, int64_t end);
  float& weight(int64_t j) { return weights_[j % kAttentionPart]; }
  int32_t block(int64_t j) const {
    return sequence_.blocks[j / kKvBlockTokens];
  }

  const AttentionArgs& args_;
  const KvLayer& layer_;
  const KvSequence& sequence_;
  const Query& query_;
  float* weights_;  // [kAttentionPart]: scores, then e_j, then with vs_j
  float* sums_;     // [v_dim]: a'
};

Part Attending::AttendPart(int64_t begin, int64_t end) {
  Part part;
  for (int64_t j = begin; j < end; ++j) {
    const std::byte* keys = layer_.keys(block(j), query_.kv_head);
    float sum = 0.0f;
    for (int64_t d = 0; d < layer_.k_dim; ++d) {
      const float key =
          LoadKv(layer_.type, keys, d * kKvBlockTokens + j % kKvBlockTokens);
      sum = std::fma(query_.q[d], key, sum);
    }
    weight(j) = args_.scale * (LoadKvScale(layer_.type, keys, j) * sum);
    part.m = std::max(part.m, weight(j));
  }
  float partial[kKvBlockTokens] = {};
  for (int64_t j = begin; j < end; ++j) {
    weight(j) = Exp(weight(j) - part.m);
    partial[j % kKvBlockTokens] += weight(j);
  }
  for (int half = kKvBlockTokens / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) partial[i] += partial[i + half];
  }
  part.z = partial[0];
  AddValues(begin, end);
  return part;
}

void Attending::AddValues(int64_t begin, int64_t end) {
  std::fill_n(sums_, layer_.v_dim, 0.0f);
  for (int64_t j = begin; j < end; ++j) {
    const bool in_key = layer_.value_in_key;
    const std::byte* values = in_key ? layer_.keys(block(j), query_.kv_head)
                                     : layer_.values(block(j), query_.kv_head);
    const int64_t lane = j % kKvBlockTokens;
    const float weighted = weight(j) * LoadKvScale(layer_.type, values, j);
    for (int64_t d = 0; d < layer_.v_dim; ++d) {
      const int64_t index =
          in_key ? d * kKvBlockTokens + lane : lane * layer_.v_dim + d;
      const float value = LoadKv(layer_.type, values, index);
      sums_[d] = std::fma(weighted, value, sums_[d]);
    }
  }
}

void Attending::Run() {
  float m = std::numeric_limits<float>::lowest();
  float z = 0.0f;
  if (query_.sink != nullptr) {
    m = *query_.sink;
    z = 1.0f;
  }
  std::fill_n(query_.out, layer_.v_dim, 0.0f);
  int64_t end = 0;
  for (int64_t j = query_.first; j <= query_.last; j = end) {
    end = std::min(query_.last + 1, (j / kAttentionPart + 1) * kAttentionPart);
    const Part part = AttendPart(j, end);
    const float n = std::max(m, part.m);
    const float f = Exp(m - n);
    const float g = Exp(part.m - n);
    m = n;
    z = std::fma(part.z, g, z * f);
    for (int64_t d = 0; d < layer_.v_dim; ++d) {
      query_.out[d] = std::fma(sums_[d], g, query_.out[d] * f);
    }
  }
  for (int64_t d = 0; d < layer_.v_dim; ++d) query_.out[d] /= z;
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
        const Query query{
            .q = args.q + row * args.q_stride + head * args.layer.k_dim,
            .out = args.out + row * args.out_stride + head * args.layer.v_dim,
            .kv_head = head / group,
            .first = FirstKey(args, position),
            .last = position,
            .sink = args.sinks != nullptr ? args.sinks + head : nullptr};
        Attending(args, sequence, query).Run();
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace bullpen::kernels::oracle
